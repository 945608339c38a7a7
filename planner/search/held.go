package search

import (
	"errors"
	"slices"

	"github.com/optimem/optimem/planner"
)

// What is on the device already is worth keeping: a plan whose residents are there needs no copies to begin with. A change is
// made once, the period is paid in every forward, so plans are compared by
//
//	cost = period + change / lifetime
//
// where the change is the time that the link takes for the bytes of residents that are not held. Where nothing is held the
// period alone counts: whatever the plan, all weights pass once in the first forward.

// lifetime is how many forwards a plan is taken to last: two pictures of a diffusion model at some 50 forwards each, or an
// answer of a language model. Later on inputs of another size or other programs on the card call for another plan.
const lifetime = 100

// cost is what a forward under a plan takes, with its part of the change.
func (b builder) cost(p planner.Plan) planner.Nanoseconds {
	if !b.holds {
		return p.Period
	}
	var missing planner.Bytes
	for _, page := range p.Pages {
		if page.Placement.Stays() {
			missing += bytesMissing(b.m, page.Units)
		}
	}
	return p.Period + changeTime(b.machine.Link, missing)
}

// keep returns the plan that was found, or one near it or near what is held that costs less.
func (b builder) keep(found planner.Plan, search func(l *lap) *search) (planner.Plan, error) {
	best := found
	if b.cost(found) == found.Period { // nothing is held, or all residents are
		return best, nil
	}
	for _, drafts := range b.regroupings(found) {
		l := newLap(b.m, b.machine, drafts)
		l.missing = b.missing(drafts)
		s := search(l)
		s.near = s.possible(placesOf(found, drafts))
		candidate, err := b.pageOf(s)
		var small *TooSmallError
		if errors.As(err, &small) { // these pages do not fit, those of the plan do
			continue
		}
		if err != nil {
			return planner.Plan{}, err
		}
		if b.better(candidate, best) {
			best = candidate
		}
	}
	return best, nil
}

// regroupings are ways to make pages in which what is held can stay where its neighbours do not, and those of a plan.
func (b builder) regroupings(p planner.Plan) [][]draft {
	pages := newGrouping(b.m, b.o)
	own := pages.of(p.Pages)
	pages.apart = true
	out := b.groupings(pages)
	if slices.ContainsFunc(out, func(other []draft) bool { return len(other) == len(own) }) {
		return out
	}
	return append(out, own)
}

// holds tells whether anything is on the device.
func holds(m planner.Manifest) bool {
	return slices.ContainsFunc(m.Units, func(u planner.Unit) bool { return u.Held })
}

// bytesMissing is how many bytes of some units are not on the device.
func bytesMissing(m planner.Manifest, units []int) planner.Bytes {
	var sum planner.Bytes
	for _, i := range units {
		if !m.Units[i].Held {
			sum += m.Units[i].Bytes
		}
	}
	return sum
}

func (b builder) missing(pages []draft) []planner.Bytes {
	out := make([]planner.Bytes, len(pages))
	for i, d := range pages {
		out[i] = bytesMissing(b.m, d.units)
	}
	return out
}

// changeTime is one forward's part of bringing so many bytes.
func changeTime(l planner.Link, missing planner.Bytes) planner.Nanoseconds {
	if missing == 0 {
		return 0
	}
	return planner.Link{Latency: 0, Rate: l.OrUsual().Rate}.Transfer(missing) / lifetime
}

// change is one forward's part of getting to places; 0 where that does not count.
func (l *lap) change(places []planner.Placement) planner.Nanoseconds {
	if l.missing == nil {
		return 0
	}
	var sum planner.Bytes
	for i, p := range places {
		if p == planner.Resident {
			sum += l.missing[i]
		}
	}
	return changeTime(l.link, sum)
}

// placesOf are the places that a plan has for the first units of some pages.
func placesOf(p planner.Plan, drafts []draft) []planner.Placement {
	where := map[int]planner.Placement{}
	for _, page := range p.Pages {
		for _, i := range page.Units {
			where[i] = page.Placement
		}
	}
	out := make([]planner.Placement, len(drafts))
	for i, d := range drafts {
		out[i] = where[d.units[0]]
	}
	return out
}

// possible are places without what cannot be: pages that must stay elsewhere, and on the CPU what it cannot compute.
func (s *search) possible(places []planner.Placement) []planner.Placement {
	for i, p := range places {
		switch {
		case s.lap.pages[i].stays:
			places[i] = planner.Resident
		case p == planner.OnCPU && (s.mayLeave == nil || !s.mayLeave[i]):
			places[i] = planner.Streamed
		}
	}
	return places
}

// lookAround offers what is held, and what lies between it and the places near which to look. In lists that are not too long
// it makes all of them better by single moves.
func (s *search) lookAround() {
	held, others := s.byHeld()
	for _, arena := range s.arenas() {
		for _, order := range [][]int{held, slices.Concat(held, others)} {
			s.offer(s.lap.firstOf(order, s.budget-arena))
		}
	}
	starts := slices.Clone(s.best[:min(2, len(s.best))])
	for part := towards; part >= 0; part-- {
		places := s.between(held, others, part)
		starts = append(starts, choice{places, s.lap.weight(places, planner.Resident), s.offer(places)})
	}
	if len(s.lap.pages) > mostLocal {
		return
	}
	limit := s.effort + heldEffort
	for i, from := range starts {
		s.climb(from, s.effort+(limit-s.effort)/(len(starts)-i))
	}
}

// towards is how many steps lookAround makes from what is near to what is held.
const towards = 3

// byHeld are the pages of which most is held, and the others, each so that any head is spread evenly.
func (s *search) byHeld() (held, others []int) {
	for i, page := range s.lap.pages {
		switch {
		case page.stays:
		case 2*s.lap.missing[i] < page.bytes:
			held = append(held, i)
		default:
			others = append(others, i)
		}
	}
	return goldenOrder(held), goldenOrder(others)
}

// between are the places near which to look with a part of the residents that are not held streamed, and as many that are
// held resident instead as fit their bytes.
func (s *search) between(held, others []int, part int) []planner.Placement {
	places := slices.Clone(s.near)
	var room planner.Bytes
	for k, i := range others {
		if places[i] == planner.Resident && (k+1)*part/towards > k*part/towards {
			places[i] = planner.Streamed
			room += s.lap.pages[i].bytes
		}
	}
	for _, i := range held {
		if places[i] == planner.Streamed && s.lap.pages[i].bytes <= room {
			places[i] = planner.Resident
			room -= s.lap.pages[i].bytes
		}
	}
	return places
}
