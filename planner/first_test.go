package planner

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// chains draws models of units that are used once each.
func chains(t *rapid.T) Manifest {
	n := rapid.IntRange(1, 12).Draw(t, "n")
	sizes, times := make([]Bytes, n), make([]Nanoseconds, n)
	for i := range n {
		sizes[i] = Bytes(rapid.IntRange(0, 1<<20).Draw(t, "bytes"))
		times[i] = Nanoseconds(rapid.IntRange(0, 100_000).Draw(t, "compute"))
	}
	return chainOf(sizes, times)
}

// allResident is the plan in which every unit is resident and comes in a copy of its own.
func allResident(m Manifest) Plan {
	p := Plan{Mode: ModePage, Budget: m.Weights(), Resident: m.Weights()}
	for i, u := range m.Units {
		p.Pages = append(p.Pages, Page{Units: []int{i}, Bytes: u.Bytes, Placement: Resident})
		p.Fill = append(p.Fill, []int{i})
	}
	return p
}

func TestTheFirstForwardCopiesOneResidentWhileItComputesTheOneBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := chains(t)
		var copied, now Nanoseconds
		for i, u := range m.Units {
			copied += pcie.Link.Transfer(u.Bytes)
			now = max(now, copied) + m.Steps[i].Compute
		}
		if got, err := First(m, allResident(m), pcie); err != nil || got != now {
			t.Fatalf("%v, %v, not %v", got, err, now)
		}
	})
}

func TestResidentsOfOneGroupComeAsOneCopy(t *testing.T) {
	m := uniform(3, 512*1000, 1_000)
	p := allResident(m)
	p.Fill = [][]int{{0, 1}, {2}}
	two, one := pcie.Link.Transfer(2*512*1000), pcie.Link.Transfer(512*1000)
	if got, err := First(m, p, pcie); err != nil || got != two+one+1_000 {
		t.Errorf("%v, %v, not %v", got, err, two+one+1_000)
	}
}

func TestResidentsThatAreHeldNeedNoCopy(t *testing.T) {
	m := uniform(3, 512*1000, 1_000)
	p := allResident(m)
	p.Fill = nil
	if got, err := First(m, p, pcie); err != nil || got != 3_000 {
		t.Errorf("%v, %v, not 3 us", got, err)
	}
}

func TestTheFirstForwardOfStreamedPagesIsThatOfTheTimeline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := chains(t)
		largest := slices.MaxFunc(m.Units, func(a, b Unit) int { return int(a.Bytes - b.Bytes) }).Bytes
		for i := range m.Units {
			m.Units[i].Bytes = largest
		}
		p := allStreamed(m, rapid.IntRange(1, 4).Draw(t, "buffers"))
		timeline, err := Evaluate(m, p, pcie)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := First(m, p, pcie); err != nil || got != timeline.First {
			t.Fatalf("%v, %v, not %v", got, err, timeline.First)
		}
	})
}
