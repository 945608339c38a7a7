package planner

import "slices"

// fill plans the first forward: every page is copied when its first use comes near, residents to their place for good and
// streamed pages through the ring. Residents that are held are there already. Others that follow each other may go as one copy, which saves a latency and delays the
// first of them; fill takes the size of such groups with which the forward ends soonest. It returns the groups and that end.
func fill(m Manifest, p Plan, machine Machine) (groups [][]int, first Nanoseconds) {
	first = never
	perLatency, visits := machine.Link.perLatency(), firstVisits(m, p)
	for _, factor := range []Bytes{0, 1, 3, 10, 30, 100} {
		some := residentGroups(m, p, visits, factor*perLatency)
		if len(groups) == len(some) && groups != nil {
			continue
		}
		if end := firstLap(m, p, machine, visits, some); end < first {
			groups, first = some, end
		}
	}
	return groups, first
}

// residentGroups are the resident pages in the order of their first use, those that follow each other with no streamed page
// between them together, as long as a group is below size.
func residentGroups(m Manifest, p Plan, visits []visit, size Bytes) [][]int {
	groups := [][]int{}
	var grown Bytes
	open := false
	for _, v := range visits {
		page := p.Pages[v.of]
		switch {
		case page.Placement != Resident:
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

// held tells whether all of a page is on the device.
func held(m Manifest, page Page) bool {
	return !slices.ContainsFunc(page.Units, func(i int) bool { return !m.Units[i].Held })
}

// firstVisits are the first uses of all pages that the device computes, in order.
func firstVisits(m Manifest, p Plan) []visit {
	var out []visit
	for i, page := range p.Pages {
		if page.Placement != Resident && page.Placement != Streamed {
			continue
		}
		use := Use{First: len(m.Steps)}
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

// firstLap is the end of a forward that starts with an empty device and copies groups of residents as they come.
func firstLap(m Manifest, p Plan, machine Machine, visits []visit, groups [][]int) Nanoseconds {
	r := newRun(m, p, machine)
	first := make([]int, len(p.Pages)) // step of a page's first use
	for _, v := range visits {
		first[v.of] = v.First
	}
	for _, group := range groups {
		var size Bytes
		for _, page := range group {
			size += p.Pages[page].Bytes
		}
		r.fills = append(r.fills, filling{first[group[0]], machine.Link.Transfer(size)})
	}
	if err := r.lap(); err != nil {
		return never
	}
	return r.now
}
