package search

import (
	"errors"

	"github.com/optimem/optimem/planner"
)

// onTouch is plan 0, for the forward that is recorded. A unit is fetched at its first touch. The likely residents stay. Of the
// other units the oldest is evicted where room is needed; where that is not enough, residents are evicted as well, in the order
// of eviction.
func (b builder) onTouch() (planner.Plan, error) {
	p := planner.Plan{Bottleneck: planner.BoundUnknown}
	if biggest := b.largest(); biggest.Bytes > b.budget {
		return planner.Plan{}, b.tooSmall(biggest.Bytes, "the largest page, "+biggest.Path)
	}
	stays, err := b.likely()
	if err != nil {
		return planner.Plan{}, err
	}
	for i, u := range b.m.Units {
		page := planner.Page{Units: []int{i}, Bytes: u.Bytes, Placement: planner.Streamed}
		if stays[i] {
			page.Placement = planner.Resident
			p.Resident += u.Bytes
		}
		p.Pages = append(p.Pages, page)
	}
	p.Eviction = evictionOrder(p.Pages)
	return p, nil
}

// likely marks the units that are likely to be resident in the plan after the recording, so that the plan finds them on the
// device. It plans for a forward that reads every unit once, in the order of registration, over a link that takes far longer
// than the computation.
func (b builder) likely() ([]bool, error) {
	supposed := b
	supposed.m.Recorded = true
	supposed.m.Steps = make([]planner.Step, len(b.m.Units))
	supposed.m.Units = make([]planner.Unit, len(b.m.Units))
	for i, u := range b.m.Units {
		supposed.m.Steps[i].Compute = b.machine.Link.Transfer(u.Bytes) / 16
		u.Uses = []planner.Use{{First: i, Last: i}}
		supposed.m.Units[i] = u
	}
	stays := make([]bool, len(b.m.Units))
	p, err := supposed.page()
	var small *TooSmallError
	if errors.As(err, &small) { // whole modules may not fit where single units do
		return stays, nil
	}
	for _, page := range p.Pages {
		for _, i := range page.Units {
			stays[i] = page.Placement.Stays()
		}
	}
	return stays, err
}
