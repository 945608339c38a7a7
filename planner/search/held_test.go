package search

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/optimem/optimem/planner"
)

// holding is a manifest with the residents of a plan on the device.
func holding(m planner.Manifest, p planner.Plan) planner.Manifest {
	m.Units = slices.Clone(m.Units)
	for _, page := range p.Pages {
		for _, i := range page.Units {
			m.Units[i].Held = page.Placement == planner.Resident
		}
	}
	return m
}

// brought is the part of a plan's residents that is not held.
func brought(m planner.Manifest, p planner.Plan) float64 {
	var missing planner.Bytes
	for _, i := range placements(p, planner.Resident) {
		missing += bytesMissing(m, p.Pages[i].Units)
	}
	return float64(missing) / float64(max(1, p.Resident))
}

// costOf is what plans are compared by.
func costOf(m planner.Manifest, machine planner.Machine, p planner.Plan) planner.Nanoseconds {
	return builder{m: m, machine: machine, holds: holds(m)}.cost(p)
}

// withoutFill is a plan without what its first forward does, which depends on what is held.
func withoutFill(p planner.Plan) planner.Plan {
	p.Fill, p.First = nil, 0
	return p
}

func TestTheResidentsOfThePlanInForceStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, o := manifests(t), percent(int64(rapid.IntRange(20, 110).Draw(t, "share")))
		p, err := Build(m, pcie, o)
		if tooSmall(t, err) {
			return
		}
		again := built(t, holding(m, p), pcie, o)
		if !reflect.DeepEqual(withoutFill(again), withoutFill(p)) {
			t.Fatalf("%+v, then %+v", p, again)
		}
		if len(again.Fill) > 0 || again.First > p.First {
			t.Fatalf("the first forward fills %v and takes %v, %v with nothing held", again.Fill, again.First, p.First)
		}
	})
}

func TestWhatIsHeldNeverMakesAPlanCostMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := manifests(t)
		o := percent(int64(rapid.IntRange(20, 110).Draw(t, "share")))
		o.Mode = rapid.SampledFrom([]planner.Mode{planner.ModePage, planner.ModeAuto}).Draw(t, "mode")
		o.PagesAsGiven = rapid.Bool().Draw(t, "pages as given")
		free, err := Build(m, pcie, o)
		if tooSmall(t, err) {
			return
		}
		m.Units = slices.Clone(m.Units)
		for i := range m.Units {
			m.Units[i].Held = rapid.Bool().Draw(t, "held")
		}
		p := built(t, m, pcie, o)
		if a, b := costOf(m, pcie, p), costOf(m, pcie, free); a > b {
			t.Fatalf("a forward costs %v, %v with the plan made without regard to what is held", a, b)
		}
		if p.Period < free.Bound {
			t.Fatalf("%v is below the bound of %v", p.Period, free.Bound)
		}
		occupancy(t, m, p, pcie)
	})
}

func TestASmallChangeOfTimesOrBudgetBringsLittle(t *testing.T) {
	var all, allFree float64
	for name, test := range map[string]struct {
		m       planner.Manifest
		asGiven bool // every unit is a page; else pages are made anew as well
		changes map[string]int64
	}{
		"equal":  {uniform(100, 8<<20, 200_000), true, map[string]int64{"other times": 50, "a larger budget": 55}},
		"mixed":  {mixed(120), true, map[string]int64{"a smaller budget": 45}},
		"long":   {mixed(700), false, map[string]int64{"other times": 50, "a larger budget": 55}},
		"blocks": {blocks(24), false, map[string]int64{"other times": 50, "a smaller budget": 45}},
	} {
		m := test.m
		o := percent(50)
		o.PagesAsGiven = test.asGiven
		before := built(t, m, pcie, o)
		noisy := holding(m, before)
		noisy.Steps = slices.Clone(m.Steps)
		for i := range noisy.Steps {
			noisy.Steps[i].Compute = m.Steps[i].Compute * planner.Nanoseconds(97+i%7) / 100
		}
		for what, share := range test.changes {
			o.VRAM.MilliPercent = 1000 * share
			p := built(t, noisy, pcie, o)
			fresh := noisy
			fresh.Units = m.Units
			free := built(t, fresh, pcie, o)
			part, partFree := brought(noisy, p), brought(noisy, free)
			t.Logf("%s, %s: %.1f %% is brought, %.1f %% without regard; %v and %v", name, what, 100*part, 100*partFree, p.Period, free.Period)
			if part > partFree || float64(p.Period) > 1.002*float64(free.Period) {
				t.Errorf("%s, %s: %.1f %% of the residents are brought for a forward of %v, without regard %.1f %% for %v", name, what,
					100*part, p.Period, 100*partFree, free.Period)
			}
			all, allFree = all+part, allFree+partFree
		}
	}
	if all > allFree*2/3 {
		t.Errorf("%.0f %% of what is brought without regard is brought", 100*all/allFree)
	}
}

// blocks is a chain of transformer blocks: two norms, attention and two layers behind it, as in ViT-L.
func blocks(n int) planner.Manifest {
	var sizes []planner.Bytes
	var times []planner.Nanoseconds
	for range n {
		sizes = append(sizes, 8<<10, 12<<20, 4<<20, 8<<10, 16<<20, 16<<20)
		times = append(times, 5_000, 50_000, 20_000, 5_000, 60_000, 60_000)
	}
	return chainOf(sizes, times)
}

// registered is a manifest before the recording.
func registered(m planner.Manifest) planner.Manifest {
	m.Recorded, m.Steps, m.Units = false, nil, slices.Clone(m.Units)
	for i := range m.Units {
		m.Units[i].Uses = nil
	}
	return m
}

func TestPlan1KeepsMostOfWhatPlan0Retained(t *testing.T) {
	drawn := func(family string) planner.Manifest { return listOf(rand.New(rand.NewPCG(15, 1)), family, 80, 0.3) }
	tests := map[string]struct {
		m       planner.Manifest
		asGiven bool // every unit is a page; else pages are made anew as well
		share   int64
	}{
		"blocks":            {blocks(24), false, 50},
		"equal":             {uniform(100, 8<<20, 200_000), false, 25},
		"lognormal":         {drawn("lognormal"), true, 75},
		"convolution":       {drawn("convolution"), true, 50},
		"attention and MLP": {drawn("attention and MLP"), true, 25},
	}
	var all float64
	for name, test := range tests {
		m, share := test.m, test.share
		o := percent(share)
		o.PagesAsGiven = test.asGiven
		zero := built(t, registered(m), planner.Machine{}, o)
		free := built(t, m, pcie, o)
		one := built(t, holding(m, zero), pcie, o)
		part, longer := brought(holding(m, zero), one), float64(one.Period)/float64(free.Period)-1
		t.Logf("%s at %d %%: plan 0 holds %v of %v; %.1f %% is brought, %.1f %% without regard; period %+.2f %%", name, share,
			zero.Resident, zero.Budget, 100*part, 100*brought(holding(m, zero), free), 100*longer)
		if longer > 0.005 {
			t.Errorf("%s at %d %%: the period is %.2f %% longer", name, share, 100*longer)
		}
		all += part / float64(len(tests))
	}
	if all > 0.15 {
		t.Errorf("%.1f %% of plan 1's residents are brought on average", 100*all)
	}
}

func TestPlan0LeavesRoomForWhatItDoesNotRetain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := registered(manifests(t))
		o := percent(int64(rapid.IntRange(1, 120).Draw(t, "share")))
		o.MaxLayerSize = int64(rapid.SampledFrom([]int{0, 0, 100, 2000}).Draw(t, "layer"))
		p, err := Build(m, planner.Machine{}, o)
		var small *TooSmallError
		if errors.As(err, &small) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		var largest planner.Bytes
		for _, i := range placements(p, planner.Streamed) {
			largest = max(largest, p.Pages[i].Bytes)
		}
		if p.Resident+largest > p.Budget {
			t.Fatalf("%v stay, and beside them up to %v come into %v", p.Resident, largest, p.Budget)
		}
	})
}
