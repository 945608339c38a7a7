package search

import (
	"slices"

	"github.com/optimem/optimem/planner"
)

// arrange gives the copies of a plan their offsets, within room bytes, so that the period stays what the choice promises, if
// that can be found; false where pages that are used at the same time find no place beside each other.
func (s *search) arrange(p *planner.Plan, c choice, room planner.Bytes, effort *int) bool {
	if len(p.Copies) == 0 {
		return true
	}
	sizes := make([]planner.Bytes, len(p.Copies))
	for k, one := range p.Copies {
		sizes[k] = p.Pages[one.Page].Bytes
	}
	room -= room % grain(sizes)
	queue := s.leastArena(c.places, room, c.period)
	lowest := never
	for _, percent := range relaxed {
		smaller := queue * percent / 100
		goal := s.period(c.places, smaller)
		if percent < 100 && goal >= lowest {
			break
		}
		for _, shape := range shapes(len(sizes)) {
			if arena := room * shape.part / 64; lowest > goal && arena >= smaller {
				lowest = s.layOut(p, c, newLayout(sizes, shape.laps, smaller, arena), goal, lowest, effort)
			}
		}
	}
	return lowest < never
}

// layOut looks for a layout that is rated lower than lowest, goal at best, gives it to the plan, and returns its rating.
func (s *search) layOut(p *planner.Plan, c choice, l *layout, goal, lowest planner.Nanoseconds, effort *int) planner.Nanoseconds {
	share := *effort / 4
	*effort -= share
	offsets, rated := l.find(goal, &share, func(offsets []planner.Bytes) planner.Nanoseconds {
		return s.ringPeriod(c.places, planner.Waits(l.size, offsets, len(l.size)/l.laps))
	})
	*effort += share
	if rated < lowest {
		setRing(p, offsets, l.laps)
	}
	return min(rated, lowest)
}

// A shape is a ring to try.
type shape struct {
	laps int           // of a turn
	part planner.Bytes // of the room, in 64ths
}

// shapes are the rings to try for so many copies. In short lists the end of a smaller arena may suit the sizes better.
func shapes(copies int) []shape {
	if copies > shortList {
		return []shape{{1, 64}, {planner.MostLaps, 64}}
	}
	return []shape{{1, 64}, {1, 62}, {1, 60}, {1, 56}, {planner.MostLaps, 64}, {planner.MostLaps, 62}, {planner.MostLaps, 60}, {planner.MostLaps, 56}}
}

// relaxed are the queues to try, in percent of the one that the period asks for: a smaller one keeps fewer copies apart, so
// that the others find a place, and may yet cost less than copies that meet.
var relaxed = []planner.Bytes{100, 97, 94, 90, 85, 80}

// grain is a power of two that divides all sizes, at most 4096.
func grain(sizes []planner.Bytes) planner.Bytes {
	all := planner.Bytes(4096)
	for _, size := range sizes {
		all |= size
	}
	return all & -all
}

// setRing repeats the copies of one lap for a ring of turn laps at offsets.
func setRing(p *planner.Plan, offsets []planner.Bytes, turn int) {
	lap := p.Copies[:len(p.Copies)/p.Turn()]
	size := make([]planner.Bytes, len(offsets))
	ring := make([]planner.Copy, len(offsets))
	p.Arena, p.Laps = 0, turn
	for k, offset := range offsets {
		ring[k] = lap[k%len(lap)]
		ring[k].Offset = offset
		size[k] = p.Pages[ring[k].Page].Bytes
		p.Arena = max(p.Arena, offset+size[k])
	}
	for k, wait := range planner.Waits(size, offsets, len(lap)) {
		ring[k].After = wait
	}
	p.Copies = ring
}

// lighten offers, where the device computes without waiting, the same with as few residents as that allows, spread evenly,
// which frees memory.
func (s *search) lighten() {
	top := s.best[0]
	if top.period > s.lap.floor {
		return // there every byte counts
	}
	var order []int
	for i, p := range top.places {
		if p == planner.Resident && !s.lap.pages[i].stays {
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
	low, high := 0, len(order)+1 // low of them may leave, high of them are too many
	for high-low > 1 {
		middle := (low + high) / 2
		places := without(middle)
		if s.period(places, s.budget-s.lap.weight(places, planner.Resident)) <= top.period {
			low = middle
		} else {
			high = middle
		}
	}
	s.offer(without(low))
}

// inTurn are the best choices in the order in which to lay them out: by period and memory, but the heaviest second, whose few
// copies find their places most easily, and what is best in a plain ring third. The best before single moves come last.
func (s *search) inTurn() []choice {
	out := slices.Clone(s.best)
	for _, c := range []choice{s.plain, s.heavy} {
		if c.places != nil {
			out = slices.Insert(out, min(1, len(out)), c)
		}
	}
	return append(out, s.raw...)
}
