package planner

// Into how many pages, at the least, a capacity and the weights are divided.
const (
	partsOfCapacity = 8
	partsOfWeights  = 16
)

// chunk plans the mode chunk: one run of whole modules lives on the device, the CPU computes the rest. The run is the one
// that saves the most time per forward within the capacity, what crosses between RAM and device counted.
func (b builder) chunk() Plan {
	pages := b.modules()
	capacity := b.capacity()
	p := Plan{Mode: ModeChunk, Bottleneck: BoundUnknown}
	from, to := b.bestRun(pages, capacity)
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
	if b.m.Recorded {
		p.Period, p.Bound = chunkPeriod(b.m, p, b.machine), LPBound(b.m, b.machine, capacity, false)
		p.Bottleneck = BoundByCPU
		if to-from == len(pages) {
			p.Bottleneck = BoundByCompute
		}
	}
	return p
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
}

// modules divides the model into whole modules: the recursion stops at modules of at most the wished size, or else a part
// of the capacity and of the weights.
func (b builder) modules() []wholeModule {
	keys := moduleKeys(b.m.Units, b.layerSize())
	index := map[string]int{}
	var out []wholeModule
	for _, v := range visits(b.m.Units) {
		at, known := index[keys[v.of]]
		if !known {
			at = len(out)
			index[keys[v.of]] = at
			out = append(out, wholeModule{closed: true})
		}
		out[at].include(v, b.m.Units[v.of], keys[v.of])
	}
	return out
}

func (w *wholeModule) include(v visit, u Unit, module string) {
	w.uses = append(w.uses, v.Use)
	for _, unit := range w.units {
		if unit == v.of {
			return
		}
	}
	w.units = append(w.units, v.of)
	w.bytes += u.Bytes
	for _, reader := range u.Readers {
		w.closed = w.closed && under(reader, module)
	}
}

// layerSize is the number of parameters at which the recursion stops.
func (b builder) layerSize() int64 {
	if b.o.MaxLayerSize > 0 {
		return b.o.MaxLayerSize
	}
	var parameters int64
	for _, u := range b.m.Units {
		parameters += u.Parameters
	}
	size := parameters / partsOfWeights
	if weights := b.m.Weights(); weights > 0 {
		perByte := float64(parameters) / float64(weights)
		size = min(size, int64(float64(b.capacity())*perByte/partsOfCapacity))
	}
	return max(1, size)
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

// bestRun returns the run of neighbouring closed pages, from inclusive to exclusive, that saves the most; ties go to the
// one with fewer bytes. Without times, before the recording, it is empty.
func (b builder) bestRun(pages []wholeModule, capacity Bytes) (from, to int) {
	var best Nanoseconds
	var bestBytes Bytes
	saves := make([]Nanoseconds, len(pages))
	for i, page := range pages {
		saves[i] = saving(b.m, b.machine, page.uses)
	}
	for start := range pages {
		var size Bytes
		var saved Nanoseconds
		for end := start; end < len(pages) && pages[end].closed; end++ {
			if size += pages[end].bytes; size > capacity {
				break
			}
			saved += saves[end]
			if saved > best || (saved == best && saved > 0 && size < bestBytes) {
				best, bestBytes, from, to = saved, size, start, end+1
			}
		}
	}
	return from, to
}

// saving is what moving a module to the device saves in one forward: its time on the CPU less that on the device (0 where
// not known), less one crossing into every call and one out of it.
func saving(m Manifest, machine Machine, uses []Use) Nanoseconds {
	var sum Nanoseconds
	for _, call := range calls(uses) {
		for s := call.First; s <= call.Last; s++ {
			sum += m.Steps[s].CPU - m.Steps[s].Compute
		}
		sum -= crossings(m, machine, call)
	}
	return sum
}

func crossings(m Manifest, machine Machine, call Use) Nanoseconds {
	sum := machine.crossing(m.Steps[call.First].Crossing)
	if call.Last+1 < len(m.Steps) {
		sum += machine.crossing(m.Steps[call.Last+1].Crossing)
	}
	return sum
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

// chunkPeriod adds up the steps, each where it runs, and the crossings. A step inside a call of a resident module runs on the
// device, unless a module that the CPU computes begins to read there.
func chunkPeriod(m Manifest, p Plan, machine Machine) Nanoseconds {
	var sum Nanoseconds
	onDevice := make([]bool, len(m.Steps))
	for _, page := range p.Pages {
		if page.Placement != Resident {
			continue
		}
		for _, call := range calls(usesOf(m, page.Units)) {
			sum += crossings(m, machine, call)
			for s := call.First; s <= call.Last; s++ {
				onDevice[s] = true
			}
		}
	}
	reads := readSides(m, p)
	for s, step := range m.Steps {
		if onDevice[s] && (reads == nil || reads[s] != left) {
			sum += step.Compute
		} else {
			sum += step.CPU
		}
	}
	return sum
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
