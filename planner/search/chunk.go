package search

import "github.com/optimem/optimem/planner"

// chunk plans the mode chunk: one run of neighbouring pages lives on the device, the CPU computes the rest. The run is the one
// that saves the most time per forward within the capacity, what crosses between RAM and device counted. What the weights are
// divided into does not depend on the capacity, so that more of it is never slower.
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
	for i := to - 1; i >= from; i-- { // what is left is a run
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

// neighbours are the pages that a run is made of, in the order of first use: single units, since a border costs the same
// wherever it lies, or modules of the wished size.
func (b builder) neighbours() []draft {
	o := b.o
	o.PagesAsGiven = o.PagesAsGiven || o.MaxLayerSize <= 0
	return newGrouping(b.m, o).drafts()
}

// unreadOnCPU keeps what no forward reads where it is; before the recording that is everything.
func unreadOnCPU(m planner.Manifest) []planner.Page {
	pages := unread(m)
	if !m.Recorded && len(pages) > 0 {
		pages[0].Placement = planner.OnCPU
	}
	return pages
}

// capacity is how many bytes may live on the device: what the user allows, within the budget.
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

// bytesOf is what n parameters of this model take on average.
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

// A span is some neighbouring pages, from inclusive to exclusive.
type span struct{ from, to int }

func (s span) and(other span) span {
	if s.to == 0 {
		return other
	}
	return span{min(s.from, other.from), max(s.to, other.to)}
}

// A tally is how long a forward takes, as Evaluate has it, with any run of pages on the device. A lap is cut into blocks, one
// for each step that begins uses, up to the next such step: it is on the device if all pages that begin there are. Activations
// cross where neighbouring blocks differ: for each of both that is on the device, less twice if both are. So the period is
// a sum of terms, each of which counts if the run has the pages of one block or of two.
type tally struct {
	period planner.Nanoseconds // with all pages on the CPU
	read   planner.Bytes       // by the CPU then, in a lap
	ram    planner.Bytes       // bytes per second that the CPU reads; 0 is without limit
	pages  []tallied
}

// A tallied is what a page adds to a run that has all pages before it.
type tallied struct {
	bytes planner.Bytes
	read  planner.Bytes // in a lap, each unit as often as it is used
	terms []term        // that the run has with this page
}

// A term is added to the period if the run has the pages from this one on.
type term struct {
	from int
	adds planner.Nanoseconds
}

func newTally(m planner.Manifest, machine planner.Machine, pages []draft) *tally {
	t := &tally{ram: machine.Host.Rate, pages: make([]tallied, len(pages))}
	terms := make([]term, usualTerms*len(pages)) // side by side, which is what makes bestRun fast
	for i, d := range pages {
		t.pages[i].bytes, t.pages[i].terms = d.bytes, terms[usualTerms*i:usualTerms*i:usualTerms*(i+1)]
	}
	begins := t.visit(m, pages)
	block := span{0, len(pages) + 1} // in no run: the input is in RAM
	for s, step := range m.Steps {
		if begin := begins[s]; begin.to > 0 {
			crossing := machine.CrossingTime(step.Crossing)
			t.add(block, crossing)
			t.add(block.and(begin), -2*crossing)
			t.add(begin, crossing)
			block = begin
		}
		t.add(block, step.Compute-step.CPU)
		t.period += step.CPU
	}
	t.add(block, machine.CrossingTime(0))
	return t
}

const usualTerms = 2 // of a page: of its block, and of its block with the one before

// visit looks at all uses and returns for every step the pages that begin there.
func (t *tally) visit(m planner.Manifest, pages []draft) []span {
	begins := make([]span, len(m.Steps))
	for i, d := range pages {
		for _, u := range d.units {
			for _, use := range m.Units[u].Uses {
				begins[use.First] = begins[use.First].and(span{i, i + 1})
				t.pages[i].read += m.Units[u].Bytes
			}
		}
		t.read += t.pages[i].read
	}
	return begins
}

// add counts some time if the run has all pages of a block.
func (t *tally) add(block span, time planner.Nanoseconds) {
	if block.to > len(t.pages) {
		return
	}
	terms := &t.pages[block.to-1].terms
	for i := range *terms {
		if (*terms)[i].from == block.from {
			(*terms)[i].adds += time
			return
		}
	}
	*terms = append(*terms, term{block.from, time})
}

// bestRun returns the run of pages within a capacity, from inclusive to exclusive, with the shortest forward. Ties go to the
// run of all pages, with which activations meet nothing on the other side, then to the one with the fewest bytes. Without
// times, before the recording, it is empty.
func (t *tally) bestRun(capacity planner.Bytes) (from, to int) {
	shortest, fewest := t.takes(t.period, t.read), planner.Bytes(0)
	for start := 0; start < len(t.pages); start += 1 + len(t.pages)*len(t.pages)/runEffort {
		period, read, size := t.period, t.read, planner.Bytes(0)
		for i := start; i < len(t.pages) && size+t.pages[i].bytes <= capacity; i++ {
			page := &t.pages[i]
			size += page.bytes
			read -= page.read
			for _, term := range page.terms {
				if term.from >= start {
					period += term.adds
				}
			}
			if period > shortest {
				continue
			}
			all := i+1-start == len(t.pages)
			if takes := t.takes(period, read); takes < shortest || takes == shortest && (size < fewest || all) {
				shortest, fewest, from, to = takes, size, start, i+1
				if all {
					fewest = 0 // no other run that ties is better
				}
			}
		}
	}
	return from, to
}

const runEffort = 1 << 27 // pages of runs that are looked at, some 5 ns each

// takes is a period, which is no shorter than the time in which RAM gives what the CPU reads.
func (t *tally) takes(period planner.Nanoseconds, read planner.Bytes) planner.Nanoseconds {
	if t.ram <= 0 {
		return period
	}
	return max(period, planner.Link{Latency: 0, Rate: t.ram}.Transfer(read))
}
