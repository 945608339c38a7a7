package search

import (
	"slices"
	"testing"

	"github.com/optimem/optimem/planner"
)

// someHeld is a manifest of n equal units of which runs of a few are held.
func someHeld(n int, bytes planner.Bytes) planner.Manifest {
	m := uniform(n, bytes, 1_000)
	for i := range m.Units {
		m.Units[i].Held = i/3%2 == 0
	}
	return m
}

func TestHeldUnitsShareNoPageWithOthers(t *testing.T) {
	m := someHeld(120, 100<<10)
	b := builder{m: m, machine: pcie, o: percent(50), budget: m.Weights() / 2, holds: true}
	p, err := b.page()
	if err != nil {
		t.Fatal(err)
	}
	merged := 0
	for _, drafts := range b.regroupings(p) {
		if len(drafts) == len(newGrouping(m, b.o).of(p.Pages)) {
			continue // the pages of the plan itself
		}
		for _, d := range drafts {
			if len(d.units) > 1 {
				merged++
			}
			if missing := bytesMissing(m, d.units); missing != 0 && missing != d.bytes {
				t.Errorf("of a page of units %v with %v, %v are missing", d.units, d.bytes, missing)
			}
		}
	}
	if merged == 0 {
		t.Error("no units share a page")
	}
}

func TestBetweenNearAndHeldResidentsGiveWayToHeldPages(t *testing.T) {
	m := someHeld(24, 1<<20)
	f := newFinder(newLap(m, pcie, newGrouping(m, planner.Options{PagesAsGiven: true}).drafts()), m.Weights()/2)
	f.lap.missing = builder{m: m}.missing(f.lap.pages)
	held, others := f.byHeld()
	f.near = f.lap.residentInOrder(others, f.budget)
	if got := f.between(held, others, 0); !slices.Equal(got, f.near) {
		t.Errorf("part 0 of the way is %v, not %v", got, f.near)
	}
	before := 0
	for part := range towards + 1 {
		places, now := f.between(held, others, part), 0
		for _, i := range held {
			if places[i] == planner.Resident {
				now++
			}
		}
		if now < before || f.lap.bytesAt(places, planner.Resident) != f.lap.bytesAt(f.near, planner.Resident) {
			t.Errorf("part %d of the way has %d held pages among %v of residents, %d before", part, now, f.lap.bytesAt(places, planner.Resident), before)
		}
		before = now
	}
	if before != len(held) {
		t.Errorf("at its end %d of %d held pages are resident", before, len(held))
	}
}
