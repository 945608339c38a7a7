package search

import (
	"slices"

	"github.com/optimem/optimem/planner"
)

// exploreNear offers the held pages as residents, and placements between these and near. In lists that are not too long it
// improves them by single moves.
func (s *finder) exploreNear() {
	held, others := s.byHeld()
	for _, arena := range s.arenas() {
		for _, order := range [][]int{held, slices.Concat(held, others)} {
			s.offer(s.lap.residentInOrder(order, s.budget-arena))
		}
	}
	starts := slices.Clone(s.best[:min(2, len(s.best))])
	for part := towards; part >= 0; part-- {
		places := s.between(held, others, part)
		starts = append(starts, choice{places, s.lap.bytesAt(places, planner.Resident), s.offer(places)})
	}
	if len(s.lap.pages) > mostLocal {
		return
	}
	limit := s.effort + heldEffort
	for i, from := range starts {
		s.climb(from, s.effort+(limit-s.effort)/(len(starts)-i))
	}
}

// towards is how many steps exploreNear makes from near to the held pages.
const towards = 3

// byHeld are the pages of which most is held, and the other pages. Any head of either list is spread evenly.
func (s *finder) byHeld() (held, others []int) {
	for i, page := range s.lap.pages {
		switch {
		case page.mustStay:
		case 2*s.lap.missing[i] < page.bytes:
			held = append(held, i)
		default:
			others = append(others, i)
		}
	}
	return goldenOrder(held), goldenOrder(others)
}

// between is near with a part of the residents streamed that are not held, and as many held pages resident as fit their bytes.
func (s *finder) between(held, others []int, part int) []planner.Placement {
	places := slices.Clone(s.near)
	var room planner.Bytes
	for k, i := range others {
		if places[i] == planner.Resident && (k+1)*part/towards > k*part/towards {
			places[i] = planner.Streamed
			room += s.lap.pages[i].bytes
		}
	}
	for _, i := range held {
		if places[i] == planner.Streamed && s.lap.pages[i].bytes <= room {
			places[i] = planner.Resident
			room -= s.lap.pages[i].bytes
		}
	}
	return places
}

// placesOf are the placements that a plan gives to the first units of some pages.
func placesOf(p planner.Plan, drafts []draft) []planner.Placement {
	where := map[int]planner.Placement{}
	for _, page := range p.Pages {
		for _, i := range page.Units {
			where[i] = page.Placement
		}
	}
	out := make([]planner.Placement, len(drafts))
	for i, d := range drafts {
		out[i] = where[d.units[0]]
	}
	return out
}

// feasible corrects placements: pages that must be resident are, and pages that the CPU cannot compute stream.
func (s *finder) feasible(places []planner.Placement) []planner.Placement {
	for i, p := range places {
		switch {
		case s.lap.pages[i].mustStay:
			places[i] = planner.Resident
		case p == planner.OnCPU && (s.forCPU == nil || !s.forCPU[i]):
			places[i] = planner.Streamed
		}
	}
	return places
}
