package planner

import "slices"

// Into how many parts, at the least, weights are divided: coarsely, since activations cross once for a module, and ever finer,
// since a part is on the device as a whole.
var partsOfWeights = []int64{16, 64, 256, 1024}

// chunk plans the mode chunk: one run of whole modules lives on the device, the CPU computes the rest. The run is the one
// that saves the most time per forward within the capacity, what crosses between RAM and device counted. What the weights are
// divided into does not depend on the capacity, so that more of it is never slower.
func (b builder) chunk() (Plan, error) {
	var best Plan
	before := 0 // pages of the division before
	for _, size := range b.layerSizes() {
		pages := b.modules(size)
		if best.Pages != nil && len(pages) == before {
			continue
		}
		before = len(pages)
		p, err := b.chunkOf(pages)
		if err != nil {
			return Plan{}, err
		}
		if best.Pages == nil || p.Period < best.Period {
			best = p
		}
	}
	if b.m.Recorded {
		best.Bound = LPBound(b.m, b.machine, b.capacity(), false)
		best.Fill, best.First = fill(b.m, best, b.machine)
	}
	return best, nil
}

// chunkOf plans for given pages.
func (b builder) chunkOf(pages []wholeModule) (Plan, error) {
	p := Plan{Mode: ModeChunk, Bottleneck: BoundUnknown}
	from, to := b.bestRun(pages, b.capacity())
	for i, d := range pages {
		page := Page{Units: d.units, Bytes: d.bytes, Placement: OnCPU}
		if i >= from && i < to {
			page.Placement = Resident
			p.Resident += d.bytes
		}
		p.Pages = append(p.Pages, page)
	}
	p.Eviction = evictionOrder(p.Pages)
	p.Pages = append(p.Pages, unreadOnCPU(b.m)...)
	if !b.m.Recorded {
		return p, nil
	}
	timeline, err := Evaluate(b.m, p, b.machine)
	p.Period, p.Bottleneck = timeline.Period, BoundByCPU
	if to-from == len(pages) {
		p.Bottleneck = BoundByCompute
	}
	return p, err
}

// unreadOnCPU keeps what no forward reads where it is; before the recording that is everything.
func unreadOnCPU(m Manifest) []Page {
	pages := unread(m)
	if !m.Recorded && len(pages) > 0 {
		pages[0].Placement = OnCPU
	}
	return pages
}

// A wholeModule is a page of a chunk: all units of a module, closed if only modules inside it read them.
type wholeModule struct {
	draft
	closed bool
	read   Bytes // in a lap, each unit as often as it is used
}

// modules divides the model into whole modules: the recursion stops at modules of at most so many parameters.
func (b builder) modules(layerSize int64) []wholeModule {
	keys := moduleKeys(b.m.Units, layerSize)
	index := map[string]int{}
	var out []wholeModule
	seen := make([]bool, len(b.m.Units))
	for _, v := range visits(b.m.Units) {
		at, known := index[keys[v.of]]
		if !known {
			at = len(out)
			index[keys[v.of]] = at
			out = append(out, wholeModule{closed: true})
		}
		out[at].uses = append(out[at].uses, v.Use)
		out[at].read += b.m.Units[v.of].Bytes
		if !seen[v.of] {
			seen[v.of] = true
			out[at].include(v.of, b.m.Units[v.of], keys[v.of])
		}
	}
	return out
}

func (w *wholeModule) include(i int, u Unit, module string) {
	w.units = append(w.units, i)
	w.bytes += u.Bytes
	for _, reader := range u.Readers {
		w.closed = w.closed && under(reader, module)
	}
}

// layerSizes are the numbers of parameters at which the recursion may stop: the wished one, or those of some divisions.
func (b builder) layerSizes() []int64 {
	if b.o.MaxLayerSize > 0 {
		return []int64{b.o.MaxLayerSize}
	}
	var parameters int64
	for _, u := range b.m.Units {
		parameters += u.Parameters
	}
	var sizes []int64
	for _, parts := range partsOfWeights {
		sizes = append(sizes, max(1, parameters/parts))
	}
	return slices.Compact(sizes)
}

// capacity is how many bytes may live on the device: what the user allows, within the budget.
func (b builder) capacity() Bytes {
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
func (b builder) bytesOf(n int64) Bytes {
	var parameters int64
	for _, u := range b.m.Units {
		parameters += u.Parameters
	}
	if parameters == 0 || n >= parameters {
		return b.m.Weights()
	}
	return Bytes(float64(b.m.Weights()) * (float64(n) / float64(parameters)))
}

// bestRun returns the run of neighbouring closed pages, from inclusive to exclusive, with the shortest forward; ties go to the
// one with fewer bytes. Without times, before the recording, it is empty.
func (b builder) bestRun(pages []wholeModule, capacity Bytes) (from, to int) {
	t := newTally(b.m, b.machine, pages)
	shortest, fewest := t.takes(), Bytes(0)
	for start := 0; start < len(pages); start += 1 + len(pages)/mostStarts {
		size, end := Bytes(0), start
		for ; end < len(pages) && pages[end].closed && size+pages[end].bytes <= capacity; end++ {
			size += pages[end].bytes
			t.move(pages[end], 1)
			if takes := t.takes(); takes < shortest || takes == shortest && size < fewest {
				shortest, fewest, from, to = takes, size, start, end+1
			}
		}
		for _, page := range pages[start:end] {
			t.move(page, -1)
		}
	}
	return from, to
}

const mostStarts = 1024 // of runs that are tried

// A tally is how long a forward takes, as Evaluate has it, while pages come to the device and leave it.
type tally struct {
	m       Manifest
	machine Machine
	period  Nanoseconds
	covered []int // per step, by calls of pages on the device
	begun   []int // per step, uses that begin there of pages on the CPU
	read    Bytes // that the CPU reads
}

// newTally has all pages on the CPU.
func newTally(m Manifest, machine Machine, pages []wholeModule) *tally {
	t := &tally{m: m, machine: machine, covered: make([]int, len(m.Steps)), begun: make([]int, len(m.Steps))}
	for _, page := range pages {
		t.read += page.read
		for _, use := range page.uses {
			t.begun[use.First]++
		}
	}
	for s := range m.Steps {
		t.period += t.time(s)
	}
	return t
}

// move brings a page to the device (1) or back (-1), with one crossing into each of its calls and one out of it.
func (t *tally) move(page wholeModule, by int) {
	for _, call := range calls(page.uses) {
		t.period += Nanoseconds(by) * crossings(t.m, t.machine, call)
		for s := call.First; s <= call.Last; s++ {
			t.change(s, by, 0)
		}
	}
	for _, use := range page.uses {
		t.change(use.First, 0, -by)
	}
	t.read -= Bytes(by) * page.read
}

// takes is the period, which is no shorter than the time in which RAM gives what the CPU reads.
func (t *tally) takes() Nanoseconds {
	if t.machine.Host.Rate <= 0 {
		return t.period
	}
	return max(t.period, Link{0, t.machine.Host.Rate}.Transfer(t.read))
}

func (t *tally) change(s, covered, begun int) {
	t.period -= t.time(s)
	t.covered[s] += covered
	t.begun[s] += begun
	t.period += t.time(s)
}

func (t *tally) time(s int) Nanoseconds {
	if t.covered[s] > 0 && t.begun[s] == 0 {
		return t.m.Steps[s].Compute
	}
	return t.m.Steps[s].CPU
}

func crossings(m Manifest, machine Machine, call Use) Nanoseconds {
	return crossingBefore(m, machine, call.First) + crossingBefore(m, machine, call.Last+1)
}

// crossingBefore is how long activations take to change sides before a step; 0 for the result, whose size is not known.
func crossingBefore(m Manifest, machine Machine, step int) Nanoseconds {
	if step == len(m.Steps) {
		return 0
	}
	return machine.crossing(m.Steps[step].Crossing)
}

// calls merges the uses of one module's units, which are in order, into its calls: uses that are close belong to one.
func calls(uses []Use) []Use {
	var out []Use
	for _, use := range uses {
		if last := len(out) - 1; last >= 0 && use.First <= out[last].Last+gapWithin {
			out[last].Last = max(out[last].Last, use.Last)
			continue
		}
		out = append(out, use)
	}
	return out
}

// gapWithin is how many steps may lie between two reads of one call: functions between the layers of a module.
const gapWithin = 2

// chunkSides has the steps inside a call of a resident module on the device, unless a module that the CPU computes begins to
// read there. Activations cross once into every such call and once out of it, also where another one follows.
func chunkSides(m Manifest, p Plan, machine Machine) side {
	out := side{onCPU: make([]bool, len(m.Steps)), crossing: make([]Nanoseconds, len(m.Steps)+1)}
	reads := readSides(m, p)
	for s := range out.onCPU {
		out.onCPU[s] = true
	}
	for _, page := range p.Pages {
		if page.Placement != Resident {
			continue
		}
		for _, call := range calls(usesOf(m, page.Units)) {
			out.crossing[call.First] += crossingBefore(m, machine, call.First)
			out.crossing[call.Last+1] += crossingBefore(m, machine, call.Last+1)
			for s := call.First; s <= call.Last; s++ {
				out.onCPU[s] = reads != nil && reads[s] == left
			}
		}
	}
	out.crossing = out.crossing[:len(m.Steps)]
	return out
}

func usesOf(m Manifest, units []int) []Use {
	var all []visit
	for _, i := range units {
		for _, use := range m.Units[i].Uses {
			all = append(all, visit{use, i})
		}
	}
	sortVisits(all)
	uses := make([]Use, len(all))
	for i, v := range all {
		uses[i] = v.Use
	}
	return uses
}
