package search

import (
	"slices"

	"github.com/optimem/optimem/planner"
)

// A layoutPass is a look for layouts: of how many choices, and with how much effort. Effort counts neighbours, which take some
// 2 ns each.
type layoutPass struct{ choices, each, together int }

// layouts are the passes for a list of pages. Every choice gets a little effort first, then the best choices share more. The
// many choices of a short list are worth more effort each.
func layouts(pages int) []layoutPass {
	if pages > shortList {
		return []layoutPass{{choices: 1 << 20, each: 60_000}, {choices: 3, together: 600_000}}
	}
	return []layoutPass{{choices: 1 << 20, each: 600_000}, {choices: 4, together: 6_000_000}}
}

// lay looks for offsets for the choices of a finder, the best choice first, and returns the best plan. It stops at a choice
// that cannot be better than the plan it has.
func (b builder) lay(s *finder) (planner.Plan, error) {
	var best planner.Plan
	s.offerLighter()
	for _, pass := range layouts(len(s.lap.pages)) {
		effort := pass.together
		for i, c := range s.layingOrder() {
			if i == pass.choices || best.Pages != nil && b.cost(best) <= s.best[0].period {
				break
			}
			if best.Pages != nil && b.cost(best) <= c.period {
				continue
			}
			p := b.assemble(s.lap, c.places)
			effort += pass.each
			if !s.arrange(&p, c, b.budget-c.resident, &effort) {
				continue
			}
			candidate, err := b.finish(p)
			if err != nil {
				return planner.Plan{}, err
			}
			if best.Pages == nil || b.better(candidate, best) {
				best = candidate
			}
		}
	}
	if best.Pages == nil {
		return planner.Plan{}, b.least(s)
	}
	return best, nil
}

// offerLighter offers the best choice with fewer residents, spread evenly, where the device computes without waiting. It takes
// as few as keep the period, which frees memory.
func (s *finder) offerLighter() {
	top := s.best[0]
	if top.period > s.lap.floor {
		return // the device waits: every resident byte counts
	}
	var order []int
	for i, p := range top.places {
		if p == planner.Resident && !s.lap.pages[i].mustStay {
			order = append(order, i)
		}
	}
	order = goldenOrder(order)
	without := func(count int) []planner.Placement {
		places := slices.Clone(top.places)
		for _, i := range order[:count] {
			places[i] = planner.Streamed
		}
		return places
	}
	low, high := 0, len(order)+1 // low of them may stream, high of them are too many
	for high-low > 1 {
		middle := (low + high) / 2
		places := without(middle)
		if s.period(places, s.budget-s.lap.bytesAt(places, planner.Resident)) <= top.period {
			low = middle
		} else {
			high = middle
		}
	}
	s.offer(without(low))
}

// layingOrder are the choices in the order in which they get layouts: by period and memory. The heaviest choice comes second,
// since its few copies find offsets most easily. The best choice in a plain ring comes third. Choices from before single moves
// come last.
func (s *finder) layingOrder() []choice {
	out := slices.Clone(s.best)
	for _, c := range []choice{s.plain, s.heavy} {
		if c.places != nil {
			out = slices.Insert(out, min(1, len(out)), c)
		}
	}
	return append(out, s.raw...)
}
