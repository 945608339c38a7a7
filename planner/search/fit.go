package search

import "github.com/optimem/optimem/planner"

// need is the least budget that places work with: the residents, and the most that the others take at the same time.
func (s *search) need(places []planner.Placement) planner.Bytes {
	together, _ := s.lap.together(places)
	return s.lap.weight(places, planner.Resident) + together
}

// smallest is the way to place pages that needs the least memory, as far as single moves find it: from all streamed, and
// from those that are held over others resident.
func (s *search) smallest() []planner.Placement {
	best := s.lap.allAway()
	if len(s.knots()) == 0 {
		return best
	}
	best = s.shrunk(best)
	if other := s.shrunk(make([]planner.Placement, len(best))); s.need(other) < s.need(best) {
		best = other
	}
	return best
}

// shrunk moves pages between resident and streamed as long as that makes the need smaller. Only pages that are
// held while others come can make a difference: one that comes and goes meanwhile takes its bytes either way.
func (s *search) shrunk(places []planner.Placement) []planner.Placement {
	least := s.need(places)
	for better := true; better; {
		better = false
		for _, i := range s.knots() {
			was := places[i]
			places[i] = opposite(was)
			if need := s.need(places); need < least {
				least, better = need, true
			} else {
				places[i] = was
			}
		}
	}
	return places
}

// knots are the pages that are held while others come, up to a number that can be tried.
func (s *search) knots() []int {
	if s.tied == nil {
		s.tied = []int{}
		seen := make([]bool, len(s.lap.pages))
		for i := range s.lap.stops {
			if stop := &s.lap.stops[i]; int(stop.anchor) > i && !seen[stop.page] && len(s.tied) < mostKnots {
				seen[stop.page] = true
				s.tied = append(s.tied, int(stop.page))
			}
		}
	}
	return s.tied
}

const mostKnots = 256
