package search

import "github.com/optimem/optimem/planner"

// chunk plans modes in which no page streams. One run of neighbouring pages is resident, and the CPU computes the others. The
// run is the one within the capacity that saves most time per forward, crossings of activations included. Pages do not depend
// on the capacity, so that more capacity is never slower.
func (b builder) chunk() (planner.Plan, error) {
	p := planner.Plan{Mode: b.o.Mode, Bottleneck: planner.BoundUnknown}
	pages := b.neighbours()
	from, to := newTally(b.m, b.machine, pages).bestRun(b.capacity())
	for i, d := range pages {
		page := planner.Page{Units: d.units, Bytes: d.bytes, Placement: planner.OnCPU}
		if i >= from && i < to {
			page.Placement = planner.Resident
			p.Resident += d.bytes
		}
		p.Pages = append(p.Pages, page)
	}
	for i := to - 1; i >= from; i-- { // so that the pages that remain are a run
		p.Eviction = append(p.Eviction, i)
	}
	p.Pages = append(p.Pages, unreadOnCPU(b.m)...)
	if !b.m.Recorded {
		return p, nil
	}
	timeline, err := planner.Evaluate(b.m, p, b.machine)
	if err != nil {
		return planner.Plan{}, err
	}
	p.Period, p.Bottleneck = timeline.Period, planner.BoundByCPU
	if to-from == len(pages) {
		p.Bottleneck = planner.BoundByCompute
	}
	p.Bound = planner.LPBound(b.m, b.machine, b.capacity(), false)
	p.Fill, p.First = fill(b.m, p, b.machine)
	return p, nil
}

// neighbours are the pages that runs are made of, in the order of first use. They are single units, since a border costs the
// same wherever it lies, or modules of the wished size.
func (b builder) neighbours() []draft {
	o := b.o
	o.PagesAsGiven = o.PagesAsGiven || o.MaxLayerSize <= 0
	return newGrouping(b.m, o).drafts()
}

// unreadOnCPU is the page of the units that no forward reads. Before the recording it has all units, and is on the CPU.
func unreadOnCPU(m planner.Manifest) []planner.Page {
	pages := unread(m)
	if !m.Recorded && len(pages) > 0 {
		pages[0].Placement = planner.OnCPU
	}
	return pages
}

// capacity is how many bytes may be resident: the wish of the user, at most the budget.
func (b builder) capacity() planner.Bytes {
	limit := b.budget
	if b.o.MaxCapacity.Bytes > 0 {
		limit = min(limit, b.o.MaxCapacity.Bytes)
	}
	if n := b.o.MaxCapacity.Parameters; n > 0 {
		limit = min(limit, b.bytesOf(n))
	}
	return limit
}

// bytesOf is how many bytes n parameters of this model take on average.
func (b builder) bytesOf(n int64) planner.Bytes {
	var parameters int64
	for _, u := range b.m.Units {
		parameters += u.Parameters
	}
	if parameters == 0 || n >= parameters {
		return b.m.Weights()
	}
	return planner.Bytes(float64(b.m.Weights()) * (float64(n) / float64(parameters)))
}
