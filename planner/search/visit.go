package search

import (
	"cmp"
	"slices"

	"github.com/optimem/optimem/planner"
)

// A visit is one use of one unit or page.
type visit struct {
	planner.Use
	of int // index of the unit or page
}

// visits lists all uses of units, by first step and then by last.
func visits(units []planner.Unit) []visit {
	return inOrder(units, func(u planner.Unit) []planner.Use { return u.Uses })
}

// visitsOf lists all uses of pages, by first step and then by last.
func visitsOf(pages []draft) []visit {
	return inOrder(pages, func(d draft) []planner.Use { return d.uses })
}

// inOrder lists all uses of items, by first step and then by last.
func inOrder[T any](items []T, uses func(T) []planner.Use) []visit {
	var all []visit
	for i, item := range items {
		for _, use := range uses(item) {
			all = append(all, visit{use, i})
		}
	}
	sortVisits(all)
	return all
}

// sortVisits sorts by first step, then by last, then by item.
func sortVisits(all []visit) {
	slices.SortStableFunc(all, func(a, b visit) int { return cmp.Or(a.First-b.First, a.Last-b.Last, a.of-b.of) })
}

// firstAfter is the index of the first visit that begins after a step. The visits are in order.
func firstAfter(all []visit, step int) int {
	at, _ := slices.BinarySearchFunc(all, step+1, func(v visit, first int) int { return cmp.Compare(v.First, first) })
	return at
}

// overtaken marks the units that are held in a use while another use begins. A ring frees in order, so such a unit would keep
// everything behind it: it must be resident.
func overtaken(all []visit, units int) []bool {
	marked := make([]bool, units)
	for _, v := range all {
		if next := firstAfter(all, v.First); next < len(all) && all[next].First <= v.Last {
			marked[v.of] = true
		}
	}
	return marked
}
