package search

import "github.com/optimem/optimem/planner"

// An evaluated is a period that is known, and the effort that it took.
type evaluated struct {
	period planner.Nanoseconds
	effort int
}

// evaluate returns the period of placements whose residents take so many bytes, with the arena that they leave. Single moves
// come by the same placements again and again, in short lists most of the time. The period is computed once; the effort
// counts every time, so that a plan does not depend on what is remembered.
func (s *finder) evaluate(places []planner.Placement, resident planner.Bytes) planner.Nanoseconds {
	s.key = s.key[:0]
	for _, p := range places {
		s.key = append(s.key, byte(p))
	}
	if known, ok := s.known[string(s.key)]; ok {
		s.effort += known.effort
		return known.period
	}
	before := s.effort
	period := s.period(places, s.budget-resident)
	s.known[string(s.key)] = evaluated{period, s.effort - before}
	return period
}
