package search

import (
	"cmp"
	"slices"

	"github.com/optimem/optimem/planner"
)

// Limits of the search. Efforts count stops that are evaluated, which take some 8 ns each.
const (
	creditEffort = 120_000   // of tryCredits, and of tryCPU
	kindsEffort  = 2_000_000 // of tryKinds
	localEffort  = 250_000   // of improve
	shortEffort  = 2_000_000 // of improve in short and middling lists
	heldEffort   = 4_000_000 // of exploreNear
	mostLocal    = 512       // pages up to which single moves are tried
	mostPlain    = 200       // pages up to which simple rules are tried closely, and in plain rings
)

// shortList is the number of pages up to which a search looks at every placement on its way.
const shortList = 64

// A choice is a way to place all pages. Its arena is the budget less the residents.
type choice struct {
	places   []planner.Placement
	resident planner.Bytes
	period   planner.Nanoseconds
}

// residentEnds is how many of the first and the last page are resident.
func (c choice) residentEnds() (count int) {
	for _, p := range []planner.Placement{c.places[0], c.places[len(c.places)-1]} {
		if p == planner.Resident {
			count++
		}
	}
	return count
}

// A finder looks for the placements with the shortest period within a budget.
type finder struct {
	*pacer
	budget planner.Bytes
	most   int      // how many choices are kept
	best   []choice // the shortest period first, no two alike
	heavy  choice   // with the most residents among those with the shortest period
	raw    []choice // the best before single moves, which make choices alike; nil where single moves find all
	plain  choice   // with the shortest period in a plain ring among those of simple rules

	known  map[string]evaluated // periods by placements, a byte for each page
	key    []byte               // used again in every call
	near   []planner.Placement  // found without regard to held units; nil where the finder disregards them
	tied   []int                // the result of knots; nil until it is known
	forCPU []bool               // per page, whether the CPU can compute it; nil where it computes no pages
}

// newFinder makes a finder for a lap and a budget in bytes.
func newFinder(l *lap, budget planner.Bytes) *finder {
	return &finder{pacer: newPacer(l), budget: budget, most: min(max(2, 768/max(1, len(l.pages))), 64), known: map[string]evaluated{}}
}

// find fills best. It also tries the placements that smaller budgets lead to, since more memory must not make a plan worse.
func (s *finder) find() {
	s.explore()
	for _, parts := range s.smaller() {
		less := newFinder(s.lap, s.budget/16*parts)
		less.forCPU = s.forCPU
		less.explore()
		for _, c := range less.best {
			s.offer(c.places)
		}
	}
}

// smaller are the smaller budgets to try, in sixteenths of the budget.
func (s *finder) smaller() []planner.Bytes {
	switch n := len(s.lap.pages); {
	case n <= shortList && s.near == nil:
		return []planner.Bytes{15, 14}
	}
	return nil
}

// explore starts with simple rules and credit passes, and improves the best placements by single moves.
func (s *finder) explore() {
	if s.near != nil {
		s.exploreNear()
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

// offer evaluates placements, and keeps them if they are among the best. It returns their period.
func (s *finder) offer(places []planner.Placement) planner.Nanoseconds {
	resident := s.lap.bytesAt(places, planner.Resident)
	if resident > s.budget {
		return never
	}
	period := s.evaluate(places, resident)
	s.keep(places, resident, period)
	return period
}

// keep inserts a choice into best: by period, then by memory. Among equals those win whose first and last page stream, which
// never lengthens a period and helps a forward that stands alone.
func (s *finder) keep(places []planner.Placement, resident planner.Bytes, period planner.Nanoseconds) {
	if period >= never {
		return
	}
	if s.heavy.places == nil || period < s.heavy.period || period == s.heavy.period && resident > s.heavy.resident {
		s.heavy = choice{slices.Clone(places), resident, period}
	}
	at, found := slices.BinarySearchFunc(s.best, choice{places, resident, period}, func(a, b choice) int {
		return cmp.Or(cmp.Compare(a.period, b.period), cmp.Compare(a.resident, b.resident), a.residentEnds()-b.residentEnds(), slices.Compare(a.places, b.places))
	})
	if found || at == s.most {
		return
	}
	if len(s.best) == s.most {
		s.best = s.best[:s.most-1]
	}
	s.best = slices.Insert(s.best, at, choice{slices.Clone(places), resident, period})
}
