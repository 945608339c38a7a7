package search

import (
	"math"
	"math/bits"
	"slices"

	"github.com/optimem/optimem/planner"
)

const (
	inFlight     = 3        // pages on their way at once, in the formula for the page size
	smallestPage = 64 << 10 // bytes below which a page is not worth a copy of its own
	budgetShare  = 16       // no page is merged above this part of the budget
)

// pageSizes are the sizes worth a try: the best by formula first, then larger ones up to the best for any budget, and the next
// smaller one. Sizes are powers of two, so that budgets that are close to each other have the same ones to choose from.
func pageSizes(weights, budget planner.Bytes, link planner.Link) []planner.Bytes {
	most := max(1, budget/budgetShare)
	best, top := pageSize(max(0, weights-budget), link), pageSize(weights, link)
	out := []planner.Bytes{min(best, powerOfTwo(most))}
	for size := 2 * best; size <= min(2*top, most); size *= 2 {
		out = append(out, size)
	}
	return append(out, out[0]/2)
}

// pageSize is the size that costs least over a forward, to the nearest power of two: streaming X bytes in pages of s with K on
// their way takes X L / s for latencies and K s / B to fill and drain, which is least at s = sqrt(X L B / K).
func pageSize(streamed planner.Bytes, link planner.Link) planner.Bytes {
	best := math.Sqrt(float64(streamed) * float64(perLatency(link)) / inFlight)
	return powerOfTwo(max(planner.Bytes(best*math.Sqrt2), smallestPage))
}

// perLatency is how many bytes a link moves in the time of its latency.
func perLatency(l planner.Link) planner.Bytes {
	l = l.OrUsual()
	return planner.Bytes(min(planner.Largest, float64(l.Latency)*float64(l.Rate)/1e9))
}

// powerOfTwo is the largest that size holds.
func powerOfTwo(size planner.Bytes) planner.Bytes { return 1 << (bits.Len64(uint64(size)) - 1) }

// A draft is a page before it has a place.
type draft struct {
	units []int
	bytes planner.Bytes
	uses  []planner.Use
	stays bool // held while others come and go: resident, unless everything fits one behind the other
}

// A grouping decides which neighbours share a page.
type grouping struct {
	units   []planner.Unit
	uses    []visit
	target  planner.Bytes // no page grows above it
	asGiven bool          // every unit is a page
	apart   bool          // units that are held share no page with others, unless modules are paged whole
	keys    []string      // of units that belong together, where modules are paged whole
	place   []int         // of a unit's only visit among those of all units that may stream
	stays   []bool        // the unit must be resident
}

func newGrouping(m planner.Manifest, o planner.Options) grouping {
	uses := visits(m.Units)
	g := grouping{
		units: m.Units, uses: uses, asGiven: o.PagesAsGiven, stays: long(uses, len(m.Units)), place: make([]int, len(m.Units)),
	}
	if o.MaxLayerSize > 0 && !o.PagesAsGiven {
		g.keys = moduleKeys(m.Units, o.MaxLayerSize)
	}
	place := 0
	for _, v := range uses {
		if !g.stays[v.of] {
			g.place[v.of] = place
			place++
		}
	}
	return g
}

// drafts groups the units that some forward reads into pages, in the order of first use.
func (g grouping) drafts() []draft {
	var out []draft
	order := make([]int, 0, len(g.units)) // all drafts' units
	begun := make([]bool, len(g.units))
	for _, v := range g.uses {
		if begun[v.of] {
			continue
		}
		begun[v.of] = true
		u := g.units[v.of]
		order = append(order, v.of)
		if last := len(out) - 1; last >= 0 && g.joins(out[last], v.of) {
			out[last].add(v.of, u)
			continue
		}
		out = append(out, draft{units: order[len(order)-1:], bytes: u.Bytes, uses: u.Uses, stays: g.stays[v.of]})
	}
	return out
}

// of are the pages of a plan that some forward reads.
func (g grouping) of(pages []planner.Page) []draft {
	var out []draft
	for _, page := range pages {
		if page.Placement.Unread() {
			continue
		}
		first := page.Units[0]
		d := draft{units: slices.Clone(page.Units[:1]), bytes: g.units[first].Bytes, uses: g.units[first].Uses, stays: g.stays[first]}
		for _, i := range page.Units[1:] {
			d.add(i, g.units[i])
		}
		out = append(out, d)
	}
	return out
}

// joins tells whether unit i may share a page with the draft before it: both are used once, nothing that streams comes
// between them, and they are small enough or of one module.
func (g grouping) joins(d draft, i int) bool {
	previous := d.units[len(d.units)-1]
	switch {
	case g.asGiven || d.stays || g.stays[i] || len(g.units[i].Uses) > 1 || len(g.units[previous].Uses) > 1:
		return false
	case g.place[i] != g.place[previous]+1:
		return false
	case g.apart && g.keys == nil && g.units[previous].Held != g.units[i].Held:
		return false
	case g.keys != nil:
		return g.keys[previous] == g.keys[i]
	}
	return d.bytes+g.units[i].Bytes <= g.target
}

func (d *draft) add(i int, u planner.Unit) {
	d.units = append(d.units, i)
	d.bytes += u.Bytes
	d.uses = []planner.Use{{First: min(d.uses[0].First, u.Uses[0].First), Last: max(d.uses[0].Last, u.Uses[0].Last)}}
}

// moduleKeys names for every unit the outermost module around it that has at most maxParameters, or the unit itself: the
// recursion stops at modules up to that size and takes each whole.
func moduleKeys(units []planner.Unit, maxParameters int64) []string {
	sums := map[string]int64{}
	for _, u := range units {
		for _, prefix := range prefixes(u.Path) {
			sums[prefix] += u.Parameters
		}
	}
	keys := make([]string, len(units))
	for i, u := range units {
		keys[i] = u.Path
		for _, prefix := range prefixes(u.Path) {
			if sums[prefix] <= maxParameters {
				keys[i] = prefix
				break
			}
		}
	}
	return keys
}

// prefixes are the modules around a path and the path itself, outermost first.
func prefixes(path string) []string {
	var out []string
	for i, r := range path {
		if r == '.' {
			out = append(out, path[:i])
		}
	}
	return append(out, path)
}

// unread is one page of all units that no forward reads, if there are any.
func unread(m planner.Manifest) []planner.Page {
	var page planner.Page
	for i, u := range m.Units {
		if len(u.Uses) == 0 {
			page.Units = append(page.Units, i)
			page.Bytes += u.Bytes
		}
	}
	if len(page.Units) == 0 {
		return nil
	}
	page.Placement = planner.Unread
	return []planner.Page{page}
}
