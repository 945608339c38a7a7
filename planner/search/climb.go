package search

import (
	"slices"

	"github.com/optimem/optimem/planner"
)

// improve looks for better choices by single moves: a page changes its placement, or two pages swap theirs. It starts from the
// best choices, in a short list also from no residents. It ends when no move helps or the effort is used up. Effort that is left
// goes into starts from the best choices with a few pages changed.
func (s *finder) improve() {
	limit := s.effort + localEffort
	starts := slices.Clone(s.best)
	if len(s.lap.pages) <= shortList || s.lap.middling() {
		limit = s.effort + shortEffort
	}
	if len(s.lap.pages) <= shortList {
		for _, places := range [][]planner.Placement{s.leanest(), s.lap.allStreamed()} {
			resident := s.lap.bytesAt(places, planner.Resident)
			starts = slices.Insert(starts, 0, choice{places, resident, s.period(places, s.budget-resident)})
		}
	}
	for _, from := range starts {
		s.climb(from, limit)
	}
	for try := 0; try < mostKicks && s.effort < limit && len(s.best) > 0; try++ {
		s.climb(s.kicked(s.best[try%min(4, len(s.best))], try), limit)
	}
}

// climb moves from a choice to better neighbours until no neighbour is better or the effort reaches limit.
func (s *finder) climb(from choice, limit int) {
	c := climber{finder: s, choice: choice{slices.Clone(from.places), from.resident, from.period}, limit: limit}
	for c.sweep() {
	}
}

// kicked is a choice with a few pages changed. The try alone says which ones. Residents stream instead until the rest fits the
// budget.
func (s *finder) kicked(from choice, try int) choice {
	c := climber{finder: s, choice: choice{slices.Clone(from.places), from.resident, never}}
	n := len(c.places)
	kicks := 2 + try%4
	for i := range kicks {
		c.toggle(int(scatter(try, i) * float64(n)))
	}
	for i := kicks; c.resident > c.budget; i++ {
		if page := int(scatter(try, i) * float64(n)); c.places[page] == planner.Resident {
			c.toggle(page)
		}
	}
	c.period = c.evaluate(c.places, c.resident)
	return c.choice
}

const mostKicks = 64

// A climber is at one choice and looks for better ones beside it.
type climber struct {
	*finder
	choice
	limit int
}

// sweep moves one page after the other to the placement that helps most. Then it lets pages swap placements, close neighbours
// first. It returns false where nothing helped.
func (c *climber) sweep() (moved bool) {
	for c.shift() {
		moved = true
	}
	n := len(c.places)
	for distance := 1; distance < n; distance++ {
		for i := 0; i+distance < n && c.effort < c.limit; i++ {
			moved = c.swap(i, i+distance) || moved
		}
	}
	return moved
}

// shift makes the one move of a page that helps most, if any helps.
func (c *climber) shift() bool {
	best, target := -1, planner.Streamed
	for i := 0; i < len(c.places) && c.effort < c.limit; i++ {
		was := c.places[i]
		for _, to := range []planner.Placement{planner.Streamed, planner.Resident, planner.OnCPU} {
			if to == was || to == planner.OnCPU && (c.forCPU == nil || !c.forCPU[i]) {
				continue
			}
			if c.put(i, to); c.helps() {
				best, target = i, to
			}
		}
		c.put(i, was)
	}
	if best >= 0 {
		c.put(best, target)
	}
	return best >= 0
}

// swap lets pages i and j swap placements if that helps.
func (c *climber) swap(i, j int) bool {
	a, b := c.places[i], c.places[j]
	if a == b || c.forCPU != nil && (a == planner.OnCPU && !c.forCPU[j] || b == planner.OnCPU && !c.forCPU[i]) {
		return false
	}
	c.put(i, b)
	c.put(j, a)
	if c.helps() {
		return true
	}
	c.put(i, a)
	c.put(j, b)
	return false
}

// helps tells whether the placements at hand are better than the choice. If so they become the choice.
func (c *climber) helps() bool {
	if c.resident > c.budget {
		return false
	}
	period := c.evaluate(c.places, c.resident)
	if period <= c.period {
		c.keep(c.places, c.resident, period)
	}
	better := period < c.period
	if better {
		c.period = period
	}
	return better
}

// put places page i.
func (c *climber) put(i int, to planner.Placement) {
	if c.places[i] == planner.Resident {
		c.resident -= c.lap.pages[i].bytes
	}
	if c.places[i] = to; to == planner.Resident {
		c.resident += c.lap.pages[i].bytes
	}
}

// toggle makes a streamed page resident, and streams any other page.
func (c *climber) toggle(i int) { c.put(i, opposite(c.places[i])) }

// opposite is Resident for a streamed page, and Streamed for any other.
func opposite(p planner.Placement) planner.Placement {
	if p == planner.Streamed {
		return planner.Resident
	}
	return planner.Streamed
}
