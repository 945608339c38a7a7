package search

import (
	"slices"

	"github.com/optimem/optimem/planner"
)

// A draft is a page before it has a placement.
type draft struct {
	units    []int
	bytes    planner.Bytes
	uses     []planner.Use
	mustStay bool // held while others come and go: resident, unless all pages fit one behind the other
}

// add appends a unit, whose only use follows those of the draft.
func (d *draft) add(i int, u planner.Unit) {
	d.units = append(d.units, i)
	d.bytes += u.Bytes
	d.uses = []planner.Use{{First: min(d.uses[0].First, u.Uses[0].First), Last: max(d.uses[0].Last, u.Uses[0].Last)}}
}

// A grouping decides which neighbouring units share a page.
type grouping struct {
	units    []planner.Unit
	uses     []visit
	target   planner.Bytes // no page grows above it
	asGiven  bool          // every unit is a page
	apart    bool          // units that are held share no page with others, unless modules are paged whole
	keys     []string      // the same for units that belong together, where modules are paged whole; else nil
	position []int         // of a unit's only visit among the visits of all units that may stream
	mustStay []bool        // the unit must be resident
}

// newGrouping prepares a grouping with the wishes of a user, and no target.
func newGrouping(m planner.Manifest, o planner.Options) grouping {
	uses := visits(m.Units)
	g := grouping{
		units: m.Units, uses: uses, asGiven: o.PagesAsGiven, mustStay: overtaken(uses, len(m.Units)), position: make([]int, len(m.Units)),
	}
	if o.MaxLayerSize > 0 && !o.PagesAsGiven {
		g.keys = moduleKeys(m.Units, o.MaxLayerSize)
	}
	place := 0
	for _, v := range uses {
		if !g.mustStay[v.of] {
			g.position[v.of] = place
			place++
		}
	}
	return g
}

// drafts groups the units that some forward reads into pages, in the order of first use.
func (g grouping) drafts() []draft {
	var out []draft
	order := make([]int, 0, len(g.units)) // the units of all drafts
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
		out = append(out, draft{units: order[len(order)-1:], bytes: u.Bytes, uses: u.Uses, mustStay: g.mustStay[v.of]})
	}
	return out
}

// of are the pages of a plan that some forward reads, as drafts.
func (g grouping) of(pages []planner.Page) []draft {
	var out []draft
	for _, page := range pages {
		if page.Placement.Unread() {
			continue
		}
		first := page.Units[0]
		d := draft{units: slices.Clone(page.Units[:1]), bytes: g.units[first].Bytes, uses: g.units[first].Uses, mustStay: g.mustStay[first]}
		for _, i := range page.Units[1:] {
			d.add(i, g.units[i])
		}
		out = append(out, d)
	}
	return out
}

// joins tells whether unit i may share a page with the draft before it. Both are used once, no other unit that may stream is
// used between them, and they are of one module or small enough.
func (g grouping) joins(d draft, i int) bool {
	previous := d.units[len(d.units)-1]
	switch {
	case g.asGiven || d.mustStay || g.mustStay[i] || len(g.units[i].Uses) > 1 || len(g.units[previous].Uses) > 1:
		return false
	case g.position[i] != g.position[previous]+1:
		return false
	case g.apart && g.keys == nil && g.units[previous].Held != g.units[i].Held:
		return false
	case g.keys != nil:
		return g.keys[previous] == g.keys[i]
	}
	return d.bytes+g.units[i].Bytes <= g.target
}

// unread is one page of all units that no forward reads; none where there are no such units.
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
