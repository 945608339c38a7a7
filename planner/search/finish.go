package search

import (
	"fmt"
	"slices"

	"github.com/optimem/optimem/planner"
)

// assemble makes a plan of placed pages. Its copies have no offsets yet.
func (b builder) assemble(l *lap, places []planner.Placement) planner.Plan {
	p := planner.Plan{Mode: b.o.Mode, Laps: 1}
	for i, d := range l.pages {
		p.Pages = append(p.Pages, planner.Page{Units: slices.Clip(d.units), Bytes: d.bytes, Placement: places[i]})
	}
	p.Resident = l.bytesAt(places, planner.Resident)
	p.Copies = l.copiesOf(places)
	p.Eviction = evictionOrder(p.Pages)
	p.Pages = append(p.Pages, unread(b.m)...)
	return p
}

// finish evaluates a plan, and names its bottleneck.
func (b builder) finish(p planner.Plan) (planner.Plan, error) {
	if p.Resident+p.Arena > b.budget {
		return planner.Plan{}, fmt.Errorf("residents of %v and an arena of %v exceed %v", p.Resident, p.Arena, b.budget)
	}
	timeline, err := planner.Evaluate(b.m, p, b.machine)
	if err != nil {
		return planner.Plan{}, err
	}
	p.Period = timeline.Period
	p.Bottleneck = b.bottleneck(p, timeline)
	return p, nil
}

// bottleneck names the engine that is busy for nineteen twentieths of the period.
func (b builder) bottleneck(p planner.Plan, timeline planner.Timeline) planner.Bottleneck {
	var compute, link, onCPU planner.Nanoseconds
	for i, s := range b.m.Steps {
		if timeline.OnCPU != nil && timeline.OnCPU[i] {
			compute, onCPU = compute+s.CPU, onCPU+s.CPU
			continue
		}
		compute += s.Compute
	}
	for _, c := range p.Copies {
		link += b.machine.Link.Transfer(p.Pages[c.Page].Bytes) / planner.Nanoseconds(p.Turn())
	}
	switch slack := p.Period / 20; {
	case compute == 0 && link == 0:
		return planner.BoundUnknown
	case compute >= p.Period-slack && onCPU > compute/2:
		return planner.BoundByCPU
	case compute >= p.Period-slack:
		return planner.BoundByCompute
	case link >= p.Period-slack:
		return planner.BoundByLink
	}
	return planner.BoundByMemory
}
