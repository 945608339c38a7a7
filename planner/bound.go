package planner

// Bound tries every step of a short list as an anchor, and fewer in a long one.
const (
	fewestAnchors = 24
	boundEffort   = 400_000 // anchors times steps
)

// Bound returns a lower bound, in ns, on the period of every policy in which the device computes all pages and at most budget
// bytes of weights are on it. The manifest is recorded.
//
// When step a starts, at most V bytes are on the device. Before step b starts, all bytes that steps a..b read have been there.
// So start(b) - start(a) >= (W(a..b) - V)/B, and start(i+1) - start(i) >= compute(i). Chained from an anchor over one lap:
//
//	c = 0; x = -inf;  per step: for every unit first read here  x = max(x, c - V/B) + w/B, c = max(c, x);  c = c + compute
//
// A unit counts once in a lap, and latencies do not count. Every division rounds so that the bound stays below.
func Bound(m Manifest, machine Machine, budget Bytes) Nanoseconds {
	reads := firstReads(m, machine.Link)
	head := bareTransfer(machine.Link, budget) + 1
	anchors := max(fewestAnchors, boundEffort/max(1, len(m.Steps)))
	var best Nanoseconds
	for anchor := 0; anchor < len(m.Steps); anchor += max(1, len(m.Steps)/anchors) {
		best = max(best, chain(m.Steps, reads, head, anchor))
	}
	return best
}

// A read is the beginning of a unit's use.
type read struct {
	transfer Nanoseconds // without latency
	unit     int
	once     bool // the unit is used once in a lap
}

// firstReads lists for every step the units whose uses begin there.
func firstReads(m Manifest, link Link) [][]read {
	reads := make([][]read, len(m.Steps))
	for i, u := range m.Units {
		for _, use := range u.Uses {
			reads[use.First] = append(reads[use.First], read{bareTransfer(link, u.Bytes), i, len(u.Uses) == 1})
		}
	}
	return reads
}

// chain is the bound from one anchor. head is the time in which the link moves the bytes that may be there at the start.
func chain(steps []Step, reads [][]read, head Nanoseconds, anchor int) Nanoseconds {
	var seen map[int]bool // of units that are used more than once
	var c Nanoseconds
	x := -Nanoseconds(Largest)
	for i := range steps {
		s := (anchor + i) % len(steps)
		for _, r := range reads[s] {
			if !r.once {
				if seen[r.unit] {
					continue
				}
				if seen == nil {
					seen = map[int]bool{}
				}
				seen[r.unit] = true
			}
			x = max(x, c-head) + r.transfer
			c = max(c, x)
		}
		c += steps[s].Compute
	}
	return c
}

// bareTransfer is the time of size bytes on the link without its latency, rounded down.
func bareTransfer(link Link, size Bytes) Nanoseconds {
	return max(0, Link{0, link.OrUsual().Rate}.Transfer(size)-1)
}
