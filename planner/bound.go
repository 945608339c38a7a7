package planner

// mostAnchors bounds the work of Bound at anchors times units.
const mostAnchors = 64

// Bound returns a lower bound on the period of any policy whatever that keeps at most budget bytes of weights on the
// device, for the mode page.
//
// When step a starts at most V bytes are on the device; before step b starts all that a..b read have been. So
// start(b) - start(a) >= (W(a..b) - V)/B, and start(i+1) - start(i) >= compute(i). Chained from an anchor over one lap:
//
//	c = 0; x = -inf;  per step: for every unit first read here  x = max(x, c - V/B) + w/B, c = max(c, x);  c = c + compute
//
// A unit counts once in a lap, latencies do not count, and every division rounds so that the bound stays below.
func Bound(m Manifest, machine Machine, budget Bytes) Nanoseconds {
	first := firstReads(m)
	var best Nanoseconds
	stride := max(1, len(m.Steps)/mostAnchors)
	for anchor := 0; anchor < len(m.Steps); anchor += stride {
		best = max(best, chain(m, machine.Link, budget, first, anchor))
	}
	return best
}

// firstReads lists for every step the units whose uses begin there.
func firstReads(m Manifest) [][]int {
	reads := make([][]int, len(m.Steps))
	for i, u := range m.Units {
		for _, use := range u.Uses {
			reads[use.First] = append(reads[use.First], i)
		}
	}
	return reads
}

func chain(m Manifest, link Link, budget Bytes, reads [][]int, anchor int) Nanoseconds {
	seen := make([]bool, len(m.Units))
	head := bareTransfer(link, budget) + 1
	var c Nanoseconds
	x := -Nanoseconds(largest)
	for i := range m.Steps {
		s := (anchor + i) % len(m.Steps)
		for _, u := range reads[s] {
			if !seen[u] && link.Rate > 0 {
				seen[u] = true
				x = max(x, c-head) + bareTransfer(link, m.Units[u].Bytes)
				c = max(c, x)
			}
		}
		c += m.Steps[s].Compute
	}
	return c
}

// bareTransfer is the time of size bytes on the link without latency, rounded down.
func bareTransfer(link Link, size Bytes) Nanoseconds {
	if link.Rate <= 0 {
		return 0
	}
	return max(0, Link{0, link.Rate}.Transfer(size)-1)
}
