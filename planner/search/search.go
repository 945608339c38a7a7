package search

import (
	"cmp"
	"slices"

	"github.com/optimem/optimem/planner"
)

// How much the search may try, in evaluated stops: some 8 ns each.
const (
	creditEffort = 120_000
	kindsEffort  = 2_000_000 // in tryKinds
	localEffort  = 250_000
	shortEffort  = 2_000_000 // in place of localEffort, in short lists and middling ones
	heldEffort   = 4_000_000 // in place of all, around what is held
	mostLocal    = 512       // pages up to which single moves are tried
	mostPlain    = 200       // pages up to which simple rules are tried closely, and in plain rings
)

// A choice is a way to place pages, with the arena that the residents leave.
type choice struct {
	places   []planner.Placement
	resident planner.Bytes
	period   planner.Nanoseconds
}

// ends is how many of the first and the last page are resident.
func (c choice) ends() (count int) {
	for _, p := range []planner.Placement{c.places[0], c.places[len(c.places)-1]} {
		if p == planner.Resident {
			count++
		}
	}
	return count
}

// A search looks for the places with the shortest period within a budget.
type search struct {
	*pacer
	budget planner.Bytes
	most   int      // choices kept
	best   []choice // the shortest period first, no two alike
	heavy  choice   // of those with the shortest period, the one with the most residents
	raw    []choice // the best before single moves, which make choices alike; nil in lists where those find all
	plain  choice   // of those that simple rules make, the one with the shortest period in a plain ring

	near     []planner.Placement // found without regard to what is held; nil in a search that disregards it
	tied     []int               // see knots
	mayLeave []bool              // per page, whether the CPU can compute it; nil where it computes none
}

func newSearch(l *lap, budget planner.Bytes) *search {
	return &search{pacer: newPacer(l), budget: budget, most: min(max(2, 768/max(1, len(l.pages))), 64)}
}

// run fills best. What a smaller budget leads to is tried as well, since more memory must not make a plan worse.
func (s *search) run() {
	s.look()
	for _, parts := range s.smaller() {
		less := newSearch(s.lap, s.budget/16*parts)
		less.mayLeave = s.mayLeave
		less.look()
		for _, c := range less.best {
			s.offer(c.places)
		}
	}
}

// smaller are the smaller budgets to look at, in sixteenths of the budget.
func (s *search) smaller() []planner.Bytes {
	switch n := len(s.lap.pages); {
	case n <= shortList && s.near == nil:
		return []planner.Bytes{15, 14}
	}
	return nil
}

// look begins with simple rules and credit passes, and makes the best of them better by single moves.
func (s *search) look() {
	if s.near != nil {
		s.lookAround()
		return
	}
	s.tryRules()
	s.tryCredits()
	if s.lap.middling() {
		s.tryKinds()
	}
	s.tryCPU()
	if len(s.lap.pages) > mostLocal {
		return
	}
	if s.lap.middling() {
		s.raw = slices.Clone(s.best)
	}
	s.improve()
}

// offer evaluates places and keeps them if they are among the best. It returns their period.
func (s *search) offer(places []planner.Placement) planner.Nanoseconds {
	resident := s.lap.weight(places, planner.Resident)
	if resident > s.budget {
		return never
	}
	period := s.period(places, s.budget-resident)
	s.keep(places, resident, period)
	return period
}

// keep puts a choice into best: by period, then by memory, then those whose first and last page stream, which never hurts a
// period and helps a forward that stands alone.
func (s *search) keep(places []planner.Placement, resident planner.Bytes, period planner.Nanoseconds) {
	if period >= never {
		return
	}
	if s.heavy.places == nil || period < s.heavy.period || period == s.heavy.period && resident > s.heavy.resident {
		s.heavy = choice{slices.Clone(places), resident, period}
	}
	at, found := slices.BinarySearchFunc(s.best, choice{places, resident, period}, func(a, b choice) int {
		return cmp.Or(cmp.Compare(a.period, b.period), cmp.Compare(a.resident, b.resident), a.ends()-b.ends(), slices.Compare(a.places, b.places))
	})
	if found || at == s.most {
		return
	}
	if len(s.best) == s.most {
		s.best = s.best[:s.most-1]
	}
	s.best = slices.Insert(s.best, at, choice{slices.Clone(places), resident, period})
}

// tryRules offers what others do: whatever fits from the front, from the back, spread evenly, the largest or the smallest
// first. Short lists are offered with every arena that this leaves, longer ones with some and then others close to the best.
func (s *search) tryRules() {
	s.offer(s.lap.allHere())
	s.offer(s.lap.allAway())
	s.offer(s.smallest())
	for _, order := range s.lap.orders() {
		best, at := never, planner.Bytes(0)
		try := func(arena planner.Bytes) {
			if period := s.offerRule(s.lap.firstOf(order, s.budget-arena)); period < best {
				best, at = period, arena
			}
		}
		arenas := s.ruleArenas(order)
		for _, arena := range arenas {
			try(arena)
		}
		for part := planner.Bytes(8); part <= 64 && len(s.lap.pages) > shortList && len(s.lap.pages) <= mostPlain; part *= 2 {
			center := at
			try(center - center/part)
			try(center + center/part)
		}
	}
}

// firstOf makes pages resident in an order, as far as they fit into room.
func (l *lap) firstOf(order []int, room planner.Bytes) []planner.Placement {
	places := l.allAway()
	room -= l.weight(places, planner.Resident)
	for _, page := range order {
		if room -= l.pages[page].bytes; room < 0 {
			break
		}
		places[page] = planner.Resident
	}
	return places
}

// ruleArenas are the arenas to offer a rule with: all that its order leaves, or in longer lists some multiples of half of what
// must be there at once.
func (s *search) ruleArenas(order []int) (arenas []planner.Bytes) {
	pages := s.lap.pages
	if len(pages) <= shortList {
		room := s.budget
		for _, page := range order {
			if room -= pages[page].bytes; room < 0 {
				break
			}
			arenas = append(arenas, room)
		}
		return append(arenas, 0)
	}
	halves := []planner.Bytes{32, 24, 18, 14, 12, 10, 9, 8, 7, 6, 5, 4, 3}
	if len(pages) > mostPlain {
		halves = []planner.Bytes{8, 5, 3}
	}
	largest, _ := s.lap.together(s.lap.allAway())
	for _, count := range halves {
		arenas = append(arenas, largest*count/2)
	}
	return arenas
}

// offerRule offers places, and remembers them if they are the best in a plain ring, which needs no luck with offsets. It
// returns their period there, in very long lists that without offsets.
func (s *search) offerRule(places []planner.Placement) planner.Nanoseconds {
	period := s.offer(places)
	if period >= never || len(places) > mostPlain {
		return period
	}
	resident := s.lap.weight(places, planner.Resident)
	period = s.ringPeriod(places, s.plainWaits(places, s.budget-resident))
	if s.plain.places == nil || period < s.plain.period {
		s.plain = choice{slices.Clone(places), resident, period}
	}
	return period
}

// plainWaits are what copies wait for that lie one behind the other in an arena.
func (s *search) plainWaits(places []planner.Placement, arena planner.Bytes) []int {
	var sizes []planner.Bytes
	for _, c := range s.lap.copiesOf(places) {
		sizes = append(sizes, s.lap.pages[c.Page].bytes)
	}
	return planner.Waits(sizes, wrapped(sizes, arena), len(sizes))
}

// allHere keeps every page on the device.
func (l *lap) allHere() []planner.Placement {
	return slices.Repeat([]planner.Placement{planner.Resident}, len(l.pages))
}

// allAway streams every page that need not be resident.
func (l *lap) allAway() []planner.Placement {
	places := make([]planner.Placement, len(l.pages))
	for i := range places {
		if l.pages[i].stays {
			places[i] = planner.Resident
		}
	}
	return places
}

// tryCredits runs credit passes in which every page may stream.
func (s *search) tryCredits() { s.trySome(nil, s.arenas(), creditEffort) }

// trySome runs credit passes with several arenas and credits, each with the shortest idle time that fits, as long as the
// effort lasts.
func (s *search) trySome(may []bool, arenas []planner.Bytes, effort int) {
	shares := s.lap.shares()
	limit := s.effort + effort
	for _, ahead := range []int64{0, one * 8 / 100, one / 5} {
		for _, share := range shares {
			for _, arena := range arenas {
				if s.effort > limit {
					return
				}
				s.halve(make([]planner.Placement, len(s.lap.pages)), arena, credit{share, ahead, may})
			}
		}
	}
}

// arenas to try: multiples of some of the largest pages, those first that are good most often.
func (s *search) arenas() []planner.Bytes {
	sizes := make([]planner.Bytes, 0, len(s.lap.pages))
	for _, page := range s.lap.pages {
		if !page.stays {
			sizes = append(sizes, page.bytes)
		}
	}
	if len(sizes) == 0 {
		return nil
	}
	slices.Sort(sizes)
	var out []planner.Bytes
	for _, halves := range []planner.Bytes{4, 6, 3, 8, 5, 2, 12} {
		for _, percentile := range []int{100, 90, 75, 50} {
			arena := sizes[(len(sizes)-1)*percentile/100] * halves / 2
			if arena <= s.budget && !slices.Contains(out, arena) {
				out = append(out, arena)
			}
		}
	}
	return out
}

// halve looks for the shortest idle time with which a credit pass fits the budget, and offers what fits on the way. Pages
// that places leaves to the CPU stay there.
func (s *search) halve(places []planner.Placement, arena planner.Bytes, c credit) {
	var fits []planner.Placement // the latest that fit, where a list is too long to offer all
	var low, high planner.Nanoseconds = -1, 0
	for _, stop := range s.lap.stops {
		high += stop.transfer
	}
	for high-low > max(1, s.lap.floor/4096) {
		middle := low + (high-low)/2
		if s.spend(places, arena, middle, c)+arena > s.budget {
			low = middle
			continue
		}
		high = middle
		if fits = slices.Clone(places); len(places) <= shortList {
			s.offer(places)
		}
	}
	if fits != nil && len(places) > shortList {
		s.offer(fits)
	}
}

const shortList = 64 // pages up to which a search looks at every way it comes by
