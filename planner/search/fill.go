package search

import (
	"slices"

	"github.com/optimem/optimem/planner"
)

// fill plans the first forward. Every page is copied shortly before its first use: residents to their place for good, streamed
// pages through the ring. Residents that are held need no copy. Neighbouring residents may go as one copy, which saves a latency
// and delays the first of them. fill takes the size of such groups with which the forward ends soonest. It returns the groups
// and the end of that forward.
func fill(m planner.Manifest, p planner.Plan, machine planner.Machine) (groups [][]int, first planner.Nanoseconds) {
	first = never
	latency, visits := perLatency(machine.Link), firstVisits(m, p)
	for _, factor := range []planner.Bytes{0, 1, 3, 10, 30, 100} {
		some := residentGroups(m, p, visits, factor*latency)
		if len(groups) == len(some) && groups != nil {
			continue
		}
		p.Fill = some
		if end, err := planner.First(m, p, machine); err == nil && end < first {
			groups, first = some, end
		}
	}
	return groups, first
}

// residentGroups are the resident pages in the order of their first use. Neighbours without a streamed page between them go
// together until the group has size bytes.
func residentGroups(m planner.Manifest, p planner.Plan, visits []visit, size planner.Bytes) [][]int {
	groups := [][]int{}
	var grown planner.Bytes
	open := false
	for _, v := range visits {
		page := p.Pages[v.of]
		switch {
		case !page.Placement.Stays():
			open = false
		case held(m, page):
		case open && grown < size:
			groups[len(groups)-1] = append(groups[len(groups)-1], v.of)
			grown += page.Bytes
		default:
			groups = append(groups, []int{v.of})
			grown, open = page.Bytes, true
		}
	}
	return groups
}

// held tells whether all units of a page are on the device.
func held(m planner.Manifest, page planner.Page) bool {
	return !slices.ContainsFunc(page.Units, func(i int) bool { return !m.Units[i].Held })
}

// firstVisits are the first uses, in order, of all pages that the device computes.
func firstVisits(m planner.Manifest, p planner.Plan) []visit {
	var out []visit
	for i, page := range p.Pages {
		if page.Placement.ByCPU() {
			continue
		}
		use := planner.Use{First: len(m.Steps)}
		for _, u := range page.Units {
			if uses := m.Units[u].Uses; len(uses) > 0 && uses[0].First < use.First {
				use = uses[0]
			}
		}
		if use.First < len(m.Steps) {
			out = append(out, visit{use, i})
		}
	}
	sortVisits(out)
	return out
}
