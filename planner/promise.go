package planner

import "slices"

// Check says which promise a plan breaks for a manifest. Its errors are ErrInvalid.
func (p Plan) Check(m Manifest) error {
	for _, check := range []func(Manifest) error{p.checkPages, p.checkBudget, p.checkCopies, p.checkRing, p.checkEviction, p.checkFill} {
		if err := check(m); err != nil {
			return err
		}
	}
	if p.Bound > p.Period && p.Period > 0 {
		return invalid("plan: the period of %d ns is below the bound of %d ns", int64(p.Period), int64(p.Bound))
	}
	return nil
}

// checkPages wants every unit in exactly one page, known placements, and pages as large as their units.
func (p Plan) checkPages(m Manifest) error {
	home := make([]int, len(m.Units))
	for i, page := range p.Pages {
		if !slices.Contains(Placements(), page.Placement) {
			return invalid("pages[%d]: there is no %v", i, page.Placement)
		}
		var size Bytes
		for _, u := range page.Units {
			if u < 0 || u >= len(m.Units) {
				return invalid("pages[%d]: there is no unit %d", i, u)
			}
			home[u]++
			size += m.Units[u].Bytes
		}
		if len(page.Units) == 0 || size != page.Bytes {
			return invalid("pages[%d]: it says %v, its %d units have %v", i, page.Bytes, len(page.Units), size)
		}
	}
	for u, pages := range home {
		if pages != 1 {
			return invalid("units[%d] (%s) is in %d pages, not in one", u, m.Units[u].Path, pages)
		}
	}
	return nil
}

// checkBudget wants residents and arena within the budget.
func (p Plan) checkBudget(Manifest) error {
	var resident Bytes
	for _, page := range p.Pages {
		if page.Placement.Stays() {
			resident += page.Bytes
		}
	}
	if resident != p.Resident {
		return invalid("plan: it says %v are resident, its pages have %v", p.Resident, resident)
	}
	if p.Arena < 0 || p.Resident+p.Arena > p.Budget {
		return invalid("plan: residents of %v and an arena of %v exceed the budget of %v", p.Resident, p.Arena, p.Budget)
	}
	return nil
}

// checkCopies wants copies in order, within the arena, and of streamed pages. They are the same in every lap of the ring. Every
// use of a streamed page has one.
func (p Plan) checkCopies(m Manifest) error {
	if p.Laps < 0 || p.Laps > MostLaps || len(p.Copies)%p.Turn() != 0 {
		return invalid("laps: %d copies are not those of %d laps, at most %d", len(p.Copies), p.Laps, MostLaps)
	}
	perLap := len(p.Copies) / p.Turn()
	for k, c := range p.Copies {
		switch {
		case c.Page < 0 || c.Page >= len(p.Pages) || !p.Pages[c.Page].Placement.Streams():
			return invalid("copies[%d]: page %d is not streamed", k, c.Page)
		case c.Offset < 0 || c.Offset+p.Pages[c.Page].Bytes > p.Arena:
			return invalid("copies[%d]: %v at %d do not lie in the arena of %v", k, p.Pages[c.Page].Bytes, int64(c.Offset), p.Arena)
		case c.First < 0 || c.Last < c.First || c.Last >= len(m.Steps):
			return invalid("copies[%d]: steps %d to %d are not among the %d there are", k, c.First, c.Last, len(m.Steps))
		case k%perLap > 0 && c.First < p.Copies[k-1].First:
			return invalid("copies[%d]: step %d does not follow step %d", k, c.First, p.Copies[k-1].First)
		case c.After < 1 || c.After > perLap:
			return invalid("copies[%d]: it waits for the copy %d places earlier in a lap of %d", k, c.After, perLap)
		case k >= perLap && !alike(c, p.Copies[k-perLap]):
			return invalid("copies[%d]: it brings another page or for other steps than copy %d, a lap before", k, k-perLap)
		}
	}
	if m.Recorded {
		return p.checkUses(m)
	}
	return nil
}

// alike tells whether two copies bring the same page for the same steps.
func alike(a, b Copy) bool { return a.Page == b.Page && a.First == b.First && a.Last == b.Last }

// checkUses wants a copy around every use of a streamed page, and no use of an unread one.
func (p Plan) checkUses(m Manifest) error {
	copies := make([][]Copy, len(p.Pages)) // of one lap
	for _, c := range p.Copies[:len(p.Copies)/p.Turn()] {
		copies[c.Page] = append(copies[c.Page], c)
	}
	for i, page := range p.Pages {
		for _, u := range page.Units {
			uses := m.Units[u].Uses
			if page.Placement.Unread() && len(uses) > 0 {
				return invalid("pages[%d]: it is %v, and step %d reads %s", i, page.Placement, uses[0].First, m.Units[u].Path)
			}
			if use, ok := uncovered(uses, copies[i]); !ok && page.Placement.Streams() {
				return invalid("pages[%d]: no copy covers steps %d to %d of %s", i, use.First, use.Last, m.Units[u].Path)
			}
		}
	}
	return nil
}

// uncovered is the first use without a copy around it, and false; true where there is none. Uses and copies are in order.
func uncovered(uses []Use, copies []Copy) (Use, bool) {
	for _, use := range uses {
		for len(copies) > 0 && copies[0].Last < use.Last {
			copies = copies[1:]
		}
		if len(copies) == 0 || copies[0].First > use.First {
			return use, false
		}
	}
	return Use{}, true
}

// checkRing wants every copy to wait for the latest earlier copy in its bytes. That copy, and all before it, must be over when
// the waiting copy is needed.
func (p Plan) checkRing(Manifest) error {
	sizes, offsets := make([]Bytes, len(p.Copies)), make([]Bytes, len(p.Copies))
	for k, c := range p.Copies {
		sizes[k], offsets[k] = p.Pages[c.Page].Bytes, c.Offset
	}
	perLap, until := len(p.Copies)/p.Turn(), p.heldUntil()
	latest := Waits(sizes, offsets, perLap)
	for k, c := range p.Copies {
		if latest[k] < c.After {
			return invalid("copies[%d]: it takes bytes of the copy %d places earlier and does not wait for it", k, latest[k])
		}
		if blocker := k - c.After; blocker >= k/perLap*perLap && until[blocker] >= c.First {
			return invalid("copies[%d]: it is needed at step %d and waits for copy %d, which with those before it is held through step %d",
				k, c.First, blocker, until[blocker])
		}
	}
	return nil
}

// heldUntil is for every copy the last step through which the copy, or an earlier one of its lap, is held.
func (p Plan) heldUntil() []int {
	until := make([]int, len(p.Copies))
	for k, c := range p.Copies {
		until[k] = c.Last
		if k%(len(p.Copies)/p.Turn()) > 0 {
			until[k] = max(until[k], until[k-1])
		}
	}
	return until
}

// checkEviction wants every resident page in the order of eviction once, and no other page.
func (p Plan) checkEviction(Manifest) error {
	seen := make([]bool, len(p.Pages))
	for _, i := range p.Eviction {
		if i < 0 || i >= len(p.Pages) || seen[i] || !p.Pages[i].Placement.Stays() {
			return invalid("eviction: page %d is not resident or named twice", i)
		}
		seen[i] = true
	}
	for i, page := range p.Pages {
		if page.Placement.Stays() && !seen[i] {
			return invalid("eviction: resident page %d is missing", i)
		}
	}
	return nil
}

// checkFill wants only resident pages in the groups of the first forward, each at most once.
func (p Plan) checkFill(Manifest) error {
	seen := make([]bool, len(p.Pages))
	for i, group := range p.Fill {
		for _, page := range group {
			if page < 0 || page >= len(p.Pages) || seen[page] || !p.Pages[page].Placement.Stays() {
				return invalid("fill[%d]: page %d is not resident or named twice", i, page)
			}
			seen[page] = true
		}
	}
	return nil
}
