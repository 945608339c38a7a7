package planner

import (
	"cmp"
	"slices"
)

// chunkBound is a lower bound on the period of any chunk within the capacity: all steps on the CPU, less the most that
// could be saved if modules could be divided and nothing crossed (the fractional knapsack). A step belongs to the largest
// module that reads in it, for the bound may only be too low.
func (b builder) chunkBound(capacity Bytes) Nanoseconds {
	type item struct {
		saved Nanoseconds
		bytes Bytes
	}
	var total, most Nanoseconds
	for _, s := range b.m.Steps {
		total += s.CPU
	}
	var items []item
	covered := make([]bool, len(b.m.Steps))
	for _, page := range b.modules() {
		var saved Nanoseconds
		for _, call := range calls(page.uses) {
			for s := call.First; s <= call.Last; s++ {
				covered[s] = true
				saved += max(0, b.m.Steps[s].CPU-b.m.Steps[s].Compute)
			}
		}
		items = append(items, item{saved, page.bytes})
	}
	for s, step := range b.m.Steps {
		if !covered[s] { // between modules: could move with either neighbour at no bytes at all
			most += max(0, step.CPU-step.Compute)
		}
	}
	slices.SortFunc(items, func(x, y item) int {
		return cmp.Compare(float64(y.saved)*float64(max(1, x.bytes)), float64(x.saved)*float64(max(1, y.bytes)))
	})
	for _, it := range items {
		part := min(1, float64(capacity)/float64(max(1, it.bytes)))
		most += Nanoseconds(float64(it.saved)*part) + 1
		if capacity -= it.bytes; capacity <= 0 {
			break
		}
	}
	return max(0, total-most)
}
