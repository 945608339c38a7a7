package search

import (
	"errors"
	"slices"

	"github.com/optimem/optimem/planner"
)

// Weights that are on the device already are worth keeping: a plan with these residents needs no copies at its start. The
// change is made once, the period is paid in every forward. So plans are compared by
//
//	cost = period + change / lifetime
//
// where change is the time in which the link brings the residents that are not held. Where nothing is held the period alone
// counts, since all weights pass once in the first forward under any plan.

// lifetime is how many forwards a plan is taken to last. That is two pictures of a diffusion model at some 50 forwards each, or
// an answer of a language model. Later inputs of another size, or other programs on the card, call for another plan.
const lifetime = 100

// cost is the time of a forward under a plan, with its part of the change.
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

// nearHeld returns the plan that was found, or a plan that costs less near it or near the held weights.
func (b builder) nearHeld(found planner.Plan, search func(l *lap) *finder) (planner.Plan, error) {
	best := found
	if b.cost(found) == found.Period { // nothing is held, or all residents are held
		return best, nil
	}
	for _, drafts := range b.regroupings(found) {
		l := newLap(b.m, b.machine, drafts)
		l.missing = b.missing(drafts)
		s := search(l)
		s.near = s.feasible(placesOf(found, drafts))
		candidate, err := b.pageOf(s)
		var small *TooSmallError
		if errors.As(err, &small) { // these pages do not fit; those of the plan do
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

// regroupings are ways to make pages in which held weights can stay where their neighbours do not, and the pages of a plan.
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

// holds tells whether any unit is on the device.
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

// missing is for each page how many bytes are not on the device.
func (b builder) missing(pages []draft) []planner.Bytes {
	out := make([]planner.Bytes, len(pages))
	for i, d := range pages {
		out[i] = bytesMissing(b.m, d.units)
	}
	return out
}

// changeTime is one forward's part of the time in which the link brings so many bytes.
func changeTime(l planner.Link, missing planner.Bytes) planner.Nanoseconds {
	if missing == 0 {
		return 0
	}
	return planner.Link{Latency: 0, Rate: l.OrUsual().Rate}.Transfer(missing) / lifetime
}

// change is one forward's part of the change to placements. It is 0 where the change does not count.
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
