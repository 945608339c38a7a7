package search

import "github.com/optimem/optimem/planner"

// need is the least budget with which placements work: the residents, and the peak of the streamed pages.
func (s *finder) need(places []planner.Placement) planner.Bytes {
	together, _ := s.lap.mostAtOnce(places)
	return s.lap.bytesAt(places, planner.Resident) + together
}

// leanest are the placements that need the least memory, as far as single moves find them. They start from all pages streamed,
// and from the pages that are held while others come resident.
func (s *finder) leanest() []planner.Placement {
	best := s.lap.allStreamed()
	if len(s.knots()) == 0 {
		return best
	}
	best = s.leaner(best)
	if other := s.leaner(make([]planner.Placement, len(best))); s.need(other) < s.need(best) {
		best = other
	}
	return best
}

// leaner moves pages between resident and streamed as long as that lowers the need. It moves only pages that are held while
// others come: a page that comes and goes meanwhile takes its bytes either way.
func (s *finder) leaner(places []planner.Placement) []planner.Placement {
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

// knots are the pages that are held while others come, at most mostKnots.
func (s *finder) knots() []int {
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
