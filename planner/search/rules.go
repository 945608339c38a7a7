package search

import (
	"cmp"
	"slices"
)

// orders are the orders in which the simple rules make pages resident: from the front, from the back, spread evenly, the
// largest first, the smallest first; and those first that are used most often.
func (l *lap) orders() [][]int {
	var front []int
	for i, page := range l.pages {
		if !page.stays {
			front = append(front, i)
		}
	}
	back := slices.Clone(front)
	slices.Reverse(back)
	large := slices.Clone(front)
	slices.SortFunc(large, func(a, b int) int { return cmp.Or(cmp.Compare(l.pages[b].bytes, l.pages[a].bytes), a-b) })
	small := slices.Clone(front)
	slices.SortFunc(small, func(a, b int) int { return cmp.Or(cmp.Compare(l.pages[a].bytes, l.pages[b].bytes), a-b) })
	spread := goldenOrder(front)
	busy := slices.Clone(spread)
	slices.SortStableFunc(busy, func(a, b int) int { return len(l.pages[b].uses) - len(l.pages[a].uses) })
	return [][]int{spread, busy, front, back, large, small}
}
