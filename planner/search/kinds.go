package search

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/optimem/optimem/planner"
)

// mostKinds is the number of kinds of pages of which every set is tried.
const mostKinds = 4

// tryKinds runs credit passes in which only pages of some kinds stream, for every set of kinds. A model of equal blocks has
// pages of few sizes. An arena that need not hold the largest of them leaves room for residents. No single move leads from one
// set of kinds to another.
func (s *finder) tryKinds() {
	kinds := s.kinds()
	sets := 1<<len(kinds) - 1 // the last set would be all kinds
	limit := s.effort + kindsEffort
	for set := 1; set < sets; set++ {
		may := make([]bool, len(s.lap.pages))
		var sizes []planner.Bytes
		for k, pages := range kinds {
			if set>>k&1 == 1 {
				sizes = append(sizes, s.lap.pages[pages[0]].bytes)
				for _, i := range pages {
					may[i] = true
				}
			}
		}
		s.tryCreditsOf(may, arenasFor(sizes), (limit-s.effort)/(sets-set))
	}
}

// middling tells whether a list is too long for single moves alone, and short enough for more than that. Models with many units
// have other groupings, and a page more or less means little there.
func (l *lap) middling() bool {
	units := 0
	for _, d := range l.pages {
		units += len(d.units)
	}
	return len(l.pages) > shortList && len(l.pages) <= mostPlain && units <= mostLocal
}

// kinds groups pages of about the same size. The kinds with the most bytes come first.
func (s *finder) kinds() [][]int {
	bySize := map[int][]int{} // sizes within a fifth of each other
	bytes := map[int]planner.Bytes{}
	for i, page := range s.lap.pages {
		if !page.mustStay && page.bytes > 0 {
			size := int(math.Round(4 * math.Log2(float64(page.bytes))))
			bySize[size] = append(bySize[size], i)
			bytes[size] += page.bytes
		}
	}
	sizes := slices.SortedFunc(maps.Keys(bySize), func(a, b int) int { return cmp.Or(cmp.Compare(bytes[b], bytes[a]), a-b) })
	var out [][]int
	for _, size := range sizes[:min(len(sizes), mostKinds)] {
		out = append(out, bySize[size])
	}
	return out
}

// arenasFor are the arenas to try where pages of about these sizes stream: multiples of the largest, and the largest with one
// of the others beside it.
func arenasFor(sizes []planner.Bytes) []planner.Bytes {
	top := slices.Max(sizes)
	out := []planner.Bytes{top, top + top/4, top + top/3, top + top/2, 2 * top, 3 * top}
	for _, size := range sizes {
		out = append(out, top+size)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
