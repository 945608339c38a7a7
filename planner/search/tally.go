package search

import "github.com/optimem/optimem/planner"

// A tally computes the time of a forward, as planner.Evaluate does, for every run of resident pages.
//
// A lap is cut into blocks. A block starts at a step that begins uses, and ends before the next such step. It is computed on
// the device if all pages whose uses begin there are resident. Activations cross where neighbouring blocks are computed on
// different sides. So there is one crossing for each of the two blocks that is on the device, less two if both are. The period
// is therefore a sum of terms, and each term counts if the run has all pages of one block or of two.
type tally struct {
	period planner.Nanoseconds // with all pages on the CPU
	read   planner.Bytes       // by the CPU in a lap, with all pages on the CPU
	ram    planner.Bytes       // bytes per second that the CPU reads; 0 is without limit
	pages  []tallied
}

// A tallied is what a page adds to a run that has all pages before it.
type tallied struct {
	bytes planner.Bytes
	read  planner.Bytes // in a lap, each unit as often as it is used
	terms []term        // of blocks that end with this page
}

// A term is added to the period if the run begins at page from or before.
type term struct {
	from int
	adds planner.Nanoseconds
}

// newTally sums up the terms of all pages.
func newTally(m planner.Manifest, machine planner.Machine, pages []draft) *tally {
	t := &tally{ram: machine.Host.Rate, pages: make([]tallied, len(pages))}
	terms := make([]term, usualTerms*len(pages)) // side by side, so that bestRun is fast
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

// usualTerms is how many terms most pages have: one for the block, one for the block with the block before.
const usualTerms = 2

// A span is some neighbouring pages, from inclusive to exclusive. The empty span is 0 to 0.
type span struct{ from, to int }

// and is the span of both and all pages between them.
func (s span) and(other span) span {
	if s.to == 0 {
		return other
	}
	return span{min(s.from, other.from), max(s.to, other.to)}
}

// visit sums up the bytes that the CPU reads, and returns for every step the pages whose uses begin there.
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

// add counts some time for the runs that have all pages of a block.
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

// bestRun returns the run of pages within a capacity with the shortest forward, from inclusive to exclusive. Among equals the
// run of all pages wins, since its activations never meet the CPU, and then the run with the fewest bytes. Before the recording
// there are no times, and the run is empty.
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
					fewest = 0 // no other run with this period is better
				}
			}
		}
	}
	return from, to
}

// runEffort bounds how many pages of runs bestRun looks at. Each takes some 5 ns.
const runEffort = 1 << 27

// takes is the period, at least the time in which RAM gives the bytes that the CPU reads.
func (t *tally) takes(period planner.Nanoseconds, read planner.Bytes) planner.Nanoseconds {
	if t.ram <= 0 {
		return period
	}
	return max(period, planner.Link{Latency: 0, Rate: t.ram}.Transfer(read))
}
