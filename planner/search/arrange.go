package search

import "github.com/optimem/optimem/planner"

// arrange looks for offsets within room bytes with which the copies of a plan keep the period of a choice. It returns false
// where pages that are used at the same time find no place beside each other.
func (s *finder) arrange(p *planner.Plan, c choice, room planner.Bytes, effort *int) bool {
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

// layOut looks for a layout that is rated lower than lowest, and stops at goal. It gives the layout to the plan, and returns
// its rating.
func (s *finder) layOut(p *planner.Plan, c choice, l *layout, goal, lowest planner.Nanoseconds, effort *int) planner.Nanoseconds {
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
	laps int           // in one turn of the ring
	part planner.Bytes // how much of the room the arena takes, in 64ths
}

// shapes are the rings to try for so many copies. Short lists also try smaller arenas, whose ends may suit the sizes better.
func shapes(copies int) []shape {
	if copies > shortList {
		return []shape{{1, 64}, {planner.MostLaps, 64}}
	}
	return []shape{{1, 64}, {1, 62}, {1, 60}, {1, 56}, {planner.MostLaps, 64}, {planner.MostLaps, 62}, {planner.MostLaps, 60}, {planner.MostLaps, 56}}
}

// relaxed are the queues to try, in percent of the queue that the period needs. A smaller queue keeps fewer copies apart, so
// that the others find a place. Its period may still be shorter than the period with copies that meet.
var relaxed = []planner.Bytes{100, 97, 94, 90, 85, 80}

// grain is the greatest power of two that divides all sizes, at most 4096.
func grain(sizes []planner.Bytes) planner.Bytes {
	all := planner.Bytes(4096)
	for _, size := range sizes {
		all |= size
	}
	return all & -all
}

// setRing gives a plan a ring of so many laps: the copies of one lap, repeated, at these offsets.
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
