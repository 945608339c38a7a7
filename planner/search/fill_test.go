package search

import (
	"math/rand/v2"
	"testing"

	"github.com/optimem/optimem/planner"
)

// rings calls a function for plain rings of a few lists, with the residents of simple rules.
func rings(t *testing.T, try func(m planner.Manifest, p planner.Plan)) {
	t.Helper()
	r := rand.New(rand.NewPCG(14, 1))
	count := 0
	for range 8 {
		m := listOf(r, "convolution", 30, ratioOf(r))
		for _, stays := range sets(m) {
			if p, fits := plainRing(m, stays, m.Weights()/100*60, 16); fits && p.Resident > 0 {
				try(m, p)
				count++
			}
		}
	}
	if count < 100 {
		t.Errorf("only %d rings were tried", count)
	}
}

func TestTheFirstForwardTakesNoLongerThanAllCopiesAndThenAllSteps(t *testing.T) {
	rings(t, func(m planner.Manifest, p planner.Plan) {
		var serial planner.Nanoseconds
		for i, u := range m.Units {
			serial += pcie.Link.Transfer(u.Bytes) + m.Steps[i].Compute
		}
		timeline, err := planner.Evaluate(m, p, pcie)
		if err != nil {
			t.Fatal(err)
		}
		if _, first := fill(m, p, pcie); first > serial || first < timeline.First {
			t.Errorf("it takes %v: %v with all residents in place, %v one after the other", first, timeline.First, serial)
		}
	})
}

func TestTheFirstForwardHasTheBestOfAllGroups(t *testing.T) {
	rings(t, func(m planner.Manifest, p planner.Plan) {
		groups, first := fill(m, p, pcie)
		p.Fill = groups
		if got, err := planner.First(m, p, pcie); err != nil || got != first {
			t.Fatalf("its groups take %v, %v, not %v", got, err, first)
		}
		for _, size := range []planner.Bytes{0, 120_000, 360_000, 1_200_000, 3_600_000, 12_000_000} {
			p.Fill = residentGroups(m, p, firstVisits(m, p), size)
			if other, err := planner.First(m, p, pcie); err != nil || other < first {
				t.Errorf("it takes %v, and %v, %v with groups of %v", first, other, err, size)
			}
		}
	})
}

func TestAPlanHasTheFirstForwardOfItsGroups(t *testing.T) {
	m := uniform(12, 8<<20, 100_000)
	p := built(t, m, pcie, planner.Options{Mode: planner.ModePage, Budget: m.Weights() / 2, PagesAsGiven: true})
	if first, err := planner.First(m, p, pcie); err != nil || first != p.First || len(p.Fill) == 0 || p.First < p.Period {
		t.Errorf("it takes %v, %v; the plan says %v with groups %v and a period of %v", first, err, p.First, p.Fill, p.Period)
	}
}
