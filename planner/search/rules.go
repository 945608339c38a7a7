package search

import (
	"cmp"
	"slices"

	"github.com/optimem/optimem/planner"
)

// tryRules offers the placements of simple rules: the pages that fit are resident, in several orders. Short lists try every
// arena that an order leaves. Longer lists try some arenas, and then others close to the best.
func (s *finder) tryRules() {
	s.offer(s.lap.allResident())
	s.offer(s.lap.allStreamed())
	s.offer(s.leanest())
	for _, order := range s.lap.orders() {
		best, at := never, planner.Bytes(0)
		try := func(arena planner.Bytes) {
			if period := s.offerRule(s.lap.residentInOrder(order, s.budget-arena)); period < best {
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

// orders are the orders in which the rules make pages resident: spread evenly, most often used first, from the front, from the
// back, the largest first, the smallest first.
func (l *lap) orders() [][]int {
	var front []int
	for i, page := range l.pages {
		if !page.mustStay {
			front = append(front, i)
		}
	}
	back := slices.Clone(front)
	slices.Reverse(back)
	large := slices.Clone(front)
	slices.SortFunc(large, func(a, b int) int { return cmp.Or(cmp.Compare(l.pages[b].bytes, l.pages[a].bytes), a-b) })
	small := slices.Clone(front)
	slices.SortFunc(small, func(a, b int) int { return cmp.Or(cmp.Compare(l.pages[a].bytes, l.pages[b].bytes), a-b) })
	spread := goldenOrder(front)
	busy := slices.Clone(spread)
	slices.SortStableFunc(busy, func(a, b int) int { return len(l.pages[b].uses) - len(l.pages[a].uses) })
	return [][]int{spread, busy, front, back, large, small}
}

// ruleArenas are the arenas to try with an order: all that it leaves, in longer lists multiples of half the peak.
func (s *finder) ruleArenas(order []int) (arenas []planner.Bytes) {
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
	largest, _ := s.lap.mostAtOnce(s.lap.allStreamed())
	for _, count := range halves {
		arenas = append(arenas, largest*count/2)
	}
	return arenas
}

// offerRule offers placements, and remembers those with the shortest period in a plain ring, which needs no luck with offsets.
// It returns their period there. In very long lists it returns the period without offsets.
func (s *finder) offerRule(places []planner.Placement) planner.Nanoseconds {
	period := s.offer(places)
	if period >= never || len(places) > mostPlain {
		return period
	}
	resident := s.lap.bytesAt(places, planner.Resident)
	period = s.ringPeriod(places, s.plainWaits(places, s.budget-resident))
	if s.plain.places == nil || period < s.plain.period {
		s.plain = choice{slices.Clone(places), resident, period}
	}
	return period
}

// plainWaits are the waits of copies that lie one behind the other in an arena.
func (s *finder) plainWaits(places []planner.Placement, arena planner.Bytes) []int {
	var sizes []planner.Bytes
	for _, c := range s.lap.copiesOf(places) {
		sizes = append(sizes, s.lap.pages[c.Page].bytes)
	}
	return planner.Waits(sizes, wrapped(sizes, arena), len(sizes))
}
