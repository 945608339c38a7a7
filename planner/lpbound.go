package planner

import (
	"cmp"
	"slices"
)

// LPBound returns a lower bound on the period of any policy that may also compute on the CPU: the linear program in which
// every unit is divided at will into parts that are resident, streamed once in a lap, or read by the CPU:
//
//	sum over steps of compute, each where it runs <= period
//	bytes streamed / rate                          <= period
//	bytes resident                                 <= budget
//	(bytes streamed + read by the CPU) / RAM rate  <= period      where that is known
//
// For one period the cheapest way is to leave to the CPU, by least added time per byte, what neither memory nor the link can
// take; the least period is found by halving. Where streams is false nothing streams, as in the mode chunk. A step belongs to
// the first unit that is read there, latencies and crossings do not count, and steps that read nothing run where they are
// fastest, all of which keeps the bound low.
func LPBound(m Manifest, machine Machine, budget Bytes, streams bool) Nanoseconds {
	items, base := lpItems(m)
	var weights Bytes
	for _, item := range items {
		weights += item.bytes
	}
	over := max(0, weights-budget)
	low, high := Nanoseconds(-1), base+bareTransfer(machine.Link, over)+added(items, over)
	for high-low > 1 {
		middle := low + (high-low)/2
		rest := over
		if streams {
			rest = max(0, over-moved(machine.Link.orUsual().Rate, middle))
		}
		if base+added(items, rest) <= middle {
			high = middle
		} else {
			low = middle
		}
	}
	if machine.Host.Rate > 0 {
		high = max(high, bareTransfer(Link{Rate: machine.Host.Rate}, over))
	}
	return high
}

// An lpItem is a unit: what it adds to the time of a lap if the CPU reads it.
type lpItem struct {
	bytes Bytes
	added Nanoseconds
}

// lpItems lists the units that are read, the cheapest to leave to the CPU first, and sums the least times of all steps.
func lpItems(m Manifest) (items []lpItem, base Nanoseconds) {
	taken := make([]bool, len(m.Steps))
	for _, step := range m.Steps {
		base += min(step.Compute, step.CPU)
	}
	for _, u := range m.Units {
		if len(u.Uses) == 0 {
			continue
		}
		item := lpItem{bytes: u.Bytes}
		for _, use := range u.Uses {
			for s := use.First; s <= use.Last; s++ {
				if !taken[s] {
					taken[s] = true
					item.added += max(0, m.Steps[s].CPU-m.Steps[s].Compute)
				}
			}
		}
		items = append(items, item)
	}
	slices.SortFunc(items, func(a, b lpItem) int {
		return cmp.Compare(float64(a.added)*float64(max(1, b.bytes)), float64(b.added)*float64(max(1, a.bytes)))
	})
	return items, base
}

// added is the least time that leaving size bytes to the CPU adds, rounded down.
func added(items []lpItem, size Bytes) Nanoseconds {
	var sum Nanoseconds
	for _, item := range items {
		if item.bytes >= size {
			return sum + Nanoseconds(float64(item.added)*(float64(size)/float64(max(1, item.bytes)))*(1-1e-9))
		}
		sum += item.added
		size -= item.bytes
	}
	return sum
}

// moved is how many bytes a link moves in a time, rounded up.
func moved(rate Bytes, time Nanoseconds) Bytes {
	size := float64(rate) * float64(time) / 1e9
	if size > largest {
		return largest
	}
	return Bytes(size*(1+1e-9)) + 1
}
