package planner

import "slices"

// need is the least budget that places work with: the residents, and the most that the others take at the same time.
func (s *search) need(places []place) Bytes {
	together, _ := s.lap.together(places)
	return s.lap.weight(places, stay) + together
}

// smallest is the way to place pages that needs the least memory, as far as single moves find it: from all streamed, and
// from those that are held over others resident.
func (s *search) smallest() []place {
	best := s.lap.allAway()
	if len(s.knots()) == 0 {
		return best
	}
	best = s.shrunk(best)
	if other := s.shrunk(make([]place, len(best))); s.need(other) < s.need(best) {
		best = other
	}
	return best
}

// shrunk moves pages between resident and streamed as long as that makes the need smaller. Only pages that are used over
// others, or under such a one, can make a difference.
func (s *search) shrunk(places []place) []place {
	least := s.need(places)
	for better := true; better; {
		better = false
		for _, i := range s.knots() {
			was := places[i]
			places[i] = stay - was // the other of the two
			if need := s.need(places); need < least {
				least, better = need, true
			} else {
				places[i] = was
			}
		}
	}
	return places
}

// knots are the pages that are used at the same time as others, up to a number that can be tried.
func (s *search) knots() []int {
	if s.tied == nil {
		s.tied = []int{}
		seen := make([]bool, len(s.lap.pages))
		until := -1 // the last stop within a use that began before
		for i := range s.lap.stops {
			stop := &s.lap.stops[i]
			if over := i <= until || int(stop.anchor) > i; over && !seen[stop.page] && len(s.tied) < mostKnots {
				seen[stop.page] = true
				s.tied = append(s.tied, int(stop.page))
			}
			until = max(until, int(stop.anchor))
		}
		slices.Sort(s.tied)
	}
	return s.tied
}

const mostKnots = 256
