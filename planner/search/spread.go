package search

import (
	"cmp"
	"slices"

	"github.com/optimem/optimem/planner"
)

// goldenStep is 2^64 divided by the golden ratio. Any number of its multiples, modulo 2^64, lies evenly on a circle.
const goldenStep uint64 = 0x9E3779B97F4A7C15

// goldenOrder orders pages so that any head and any tail of the list is spread evenly over the pages.
func goldenOrder(pages []int) []int {
	type placed struct {
		page int
		key  uint64
	}
	keyed := make([]placed, len(pages))
	for i, page := range pages {
		keyed[i] = placed{page, uint64(i+1) * goldenStep}
	}
	slices.SortFunc(keyed, func(a, b placed) int { return cmp.Compare(a.key, b.key) })
	out := make([]int, len(keyed))
	for i, k := range keyed {
		out[i] = k.page
	}
	return out
}

// evictionOrder lists the resident pages, the first to evict first. The pages that remain are always spread evenly.
func evictionOrder(pages []planner.Page) []int {
	var resident []int
	for i, page := range pages {
		if page.Placement.Stays() {
			resident = append(resident, i)
		}
	}
	return goldenOrder(resident)
}
