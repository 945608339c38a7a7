package search

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/optimem/optimem/planner"
)

func TestWhatFitsIsResidentAndNothingStreams(t *testing.T) {
	p := built(t, uniform(10, 1<<20, 50_000), pcie, percent(100))
	if len(placements(p, planner.Resident)) != len(p.Pages) || p.Arena != 0 || len(p.Copies) != 0 || p.Period != 500_000 || p.Bound != 500_000 {
		t.Errorf("got %+v", p)
	}
}

func TestResidentsAreSpreadEvenlyAndNeverTheFirstLayers(t *testing.T) {
	p := built(t, uniform(100, 1<<20, 40_000), pcie, percent(50))
	resident := placements(p, planner.Resident)
	if p.Resident < p.Budget*9/10 {
		t.Fatalf("only %v of %v are resident", p.Resident, p.Budget)
	}
	if first, last := p.Pages[0].Placement, p.Pages[len(p.Pages)-1].Placement; first != planner.Streamed || last != planner.Streamed {
		t.Errorf("the first page is %s and the last one %s: both should stream", first, last)
	}
	t.Logf("%d of %d pages, %v resident, an arena of %v, %v", len(resident), len(p.Pages), p.Resident, p.Arena, p.Period)
	for i := 1; i < len(resident); i++ {
		if gap := resident[i] - resident[i-1]; gap > 2*len(p.Pages)/len(resident)+1 {
			t.Errorf("no resident between pages %d and %d", resident[i-1], resident[i])
		}
	}
}

func TestABudgetBelowTheLargestPageNamesItAndTheBytesMissing(t *testing.T) {
	m := chainOf([]planner.Bytes{8 << 20, 9 << 20, 1 << 20}, []planner.Nanoseconds{1, 1, 1})
	for _, recorded := range []bool{true, false} {
		m := m
		if m.Recorded = recorded; !recorded {
			m.Units = slices.Clone(m.Units)
			for i := range m.Units {
				m.Units[i].Uses = nil
			}
		}
		_, err := Build(m, pcie, planner.Options{Mode: planner.ModePage, VRAM: planner.Share{MilliPercent: 25_000}})
		var small *TooSmallError
		if !errors.As(err, &small) || small.Missing() != 9<<20-18<<20/4 || !strings.Contains(err.Error(), "layers.1 takes 9.0 MiB") {
			t.Errorf("recorded %v: got %v", recorded, err)
		}
	}
}

func TestAUnitReadOverManyStepsStaysResidentAndAlone(t *testing.T) {
	m := uniform(20, 1<<20, 1000)
	m.Units = append(m.Units, planner.Unit{Path: "scale", Bytes: 256, Parameters: 64, Readers: []string{""}, Uses: []planner.Use{{First: 0, Last: 19}}})
	p := built(t, m, pcie, percent(40))
	for _, page := range p.Pages {
		if slices.Contains(page.Units, 20) && (page.Placement != planner.Resident || len(page.Units) != 1) {
			t.Errorf("its page is %+v", page)
		}
	}
}

func TestATiedUnitHasOnePageAndACopyForEachUse(t *testing.T) {
	m := uniform(20, 1<<20, 1000)
	m.Units[0].Uses = []planner.Use{{First: 0, Last: 0}, {First: 19, Last: 19}}
	m.Units[0].Bytes = 2 << 20
	m.Units[19].Uses = []planner.Use{{First: 18, Last: 18}}
	m.Units[18].Uses = []planner.Use{{First: 17, Last: 17}}
	m.Units[17].Uses = nil
	p := built(t, m, pcie, percent(30))
	copies := 0
	for _, c := range p.Copies {
		if slices.Equal(p.Pages[c.Page].Units, []int{0}) {
			copies++
		}
	}
	if copies != 2 && !slices.ContainsFunc(p.Pages, func(p planner.Page) bool { return p.Placement == planner.Resident && slices.Contains(p.Units, 0) }) {
		t.Errorf("%d copies", copies)
	}
	if unread := placements(p, planner.Unread); len(unread) != 1 || !slices.Equal(p.Pages[unread[0]].Units, []int{17}) {
		t.Errorf("unread: %v", unread)
	}
}

func TestModulesUpToTheLayerSizeArePagedWhole(t *testing.T) {
	m := chainOf([]planner.Bytes{400, 400, 400, 4000}, []planner.Nanoseconds{1, 1, 1, 1})
	for i, path := range []string{"a.x", "a.y", "b.x", "b.y"} {
		m.Units[i].Path = path
	}
	o := percent(95)
	o.MaxLayerSize = 200
	p := built(t, m, pcie, o)
	var pages [][]int
	for _, page := range p.Pages {
		pages = append(pages, page.Units)
	}
	if want := [][]int{{0, 1}, {2}, {3}}; !reflect.DeepEqual(pages, want) {
		t.Errorf("got %v, not %v", pages, want)
	}
}

func TestBytesOnTheCardHoldActivationsToo(t *testing.T) {
	m := uniform(10, 1<<20, 1000)
	m.Steps[4].Activations = 2 << 20
	p := built(t, m, planner.Machine{Free: 64 << 20, Link: pcie.Link}, planner.Options{Mode: planner.ModePage, VRAM: planner.Share{Bytes: 6 << 20}})
	if p.Reserve != 2<<20+2<<20/10 || p.Budget+p.Reserve != 6<<20 {
		t.Errorf("budget %v and reserve %v", p.Budget, p.Reserve)
	}
	p = built(t, m, planner.Machine{Free: 5 << 20, Link: pcie.Link}, percent(90))
	if p.Budget+p.Reserve != 5<<20 {
		t.Errorf("budget %v and reserve %v exceed what is free", p.Budget, p.Reserve)
	}
}

func TestADeviceThatTellsNothingNeedsAWord(t *testing.T) {
	if _, err := Build(uniform(3, 512, 1), pcie, planner.Options{Mode: planner.ModePage}); err == nil || !strings.Contains(err.Error(), "vram") {
		t.Errorf("got %v", err)
	}
}

func TestAChunkIsTheRunThatSavesMostNotTheFirst(t *testing.T) {
	m := uniform(16, 1<<20, 1_000_000)
	for i := 8; i < 12; i++ {
		m.Steps[i].CPU = 50_000_000
	}
	p := built(t, m, pcie, planner.Options{Mode: planner.ModeChunk, VRAM: planner.Share{MilliPercent: 25_000}})
	var units []int
	for _, i := range placements(p, planner.Resident) {
		units = append(units, p.Pages[i].Units...)
	}
	if !slices.Equal(units, []int{8, 9, 10, 11}) || p.Arena != 0 || len(p.Copies) != 0 {
		t.Errorf("resident: %v", units)
	}
}

func TestAChunkOfAllPagesLeavesNoneToTheCPUForWantOfAGain(t *testing.T) {
	m := uniform(4, 1<<20, 10_000_000)
	m.Steps[0].CPU, m.Steps[3].CPU = m.Steps[0].Compute, m.Steps[3].Compute
	for capacity, want := range map[planner.Bytes][]int{1 << 20: {1}, 3 << 20: {1, 2}, 4 << 20: {0, 1, 2, 3}} {
		p := built(t, m, pcie, planner.Options{Mode: planner.ModeChunk, MaxCapacity: planner.Capacity{Bytes: capacity}, VRAM: planner.Share{MilliPercent: 100_000}})
		if got := placements(p, planner.Resident); !slices.Equal(got, want) {
			t.Errorf("%v: pages %v are resident, not %v", capacity, got, want)
		}
	}
}

func TestAChunkShrinksFromItsEnd(t *testing.T) {
	p := built(t, uniform(8, 1<<20, 10_000_000), pcie, planner.Options{Mode: planner.ModeChunk, VRAM: planner.Share{MilliPercent: 50_000}})
	if !slices.Equal(p.Eviction, []int{3, 2, 1, 0}) {
		t.Errorf("got %v", p.Eviction)
	}
}

func TestCapacityCountsParameters(t *testing.T) {
	p := built(t, uniform(16, 1<<20, 1_000_000), pcie, planner.Options{Mode: planner.ModeChunk, VRAM: planner.Share{MilliPercent: 100_000}, MaxCapacity: planner.Capacity{Parameters: 2 << 18}})
	if p.Resident != 2<<20 {
		t.Errorf("%v are resident", p.Resident)
	}
}

func TestEvictionKeepsWhateverStaysSpread(t *testing.T) {
	p := built(t, uniform(64, 1<<20, 10), pcie, percent(100))
	for _, gone := range []int{16, 32, 48} {
		stays := slices.Sorted(slices.Values(p.Eviction[gone:]))
		for i := 1; i < len(stays); i++ {
			if gap := stays[i] - stays[i-1]; gap > 4*64/len(stays) {
				t.Errorf("after %d evictions none stays between pages %d and %d", gone, stays[i-1], stays[i])
			}
		}
	}
}

func TestEveryPlanKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := manifests(t)
		o := planner.Options{Mode: rapid.SampledFrom(planner.Modes()).Draw(t, "mode"), VRAM: planner.Share{MilliPercent: int64(rapid.IntRange(1_000, 120_000).Draw(t, "share"))}}
		o.MaxLayerSize = int64(rapid.SampledFrom([]int{0, 0, 100, 2000}).Draw(t, "layer"))
		machine := planner.Machine{Link: planner.Link{Latency: planner.Nanoseconds(rapid.IntRange(0, 20_000).Draw(t, "latency")), Rate: planner.Bytes(rapid.IntRange(1, 2_000_000_000).Draw(t, "rate"))}}
		p, err := Build(m, machine, o)
		if errors.Is(err, planner.ErrInvalid) && endless(m, machine) {
			return
		}
		var small *TooSmallError
		if errors.As(err, &small) {
			if small.Missing() <= 0 {
				t.Fatalf("nothing is missing: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(m); err != nil {
			t.Fatal(err)
		}
		occupancy(t, m, p, machine)
		if again, _ := Build(m, machine, o); !reflect.DeepEqual(again, p) {
			t.Fatal("the same inputs gave another plan")
		}
	})
}

// endless tells whether the copies and crossings of one lap take longer than the longest time that the planner takes.
func endless(m planner.Manifest, machine planner.Machine) bool {
	seconds := 0.0
	for _, u := range m.Units {
		seconds += float64(len(u.Uses)) * (float64(machine.Link.Latency)/1e9 + float64(u.Bytes)/float64(machine.Link.Rate))
	}
	for _, s := range m.Steps {
		seconds += float64(machine.Link.Latency)/1e9 + float64(s.Crossing)/float64(machine.Link.Rate)
	}
	return seconds > planner.Largest/1e9*0.999
}

// occupancy replays a plan and wants no two copies in the same bytes at the same time.
func occupancy(t *rapid.T, m planner.Manifest, p planner.Plan, machine planner.Machine) {
	timeline, err := planner.Evaluate(m, p, machine)
	if err != nil {
		t.Fatal(err)
	}
	over := func(k int) planner.Nanoseconds { // when a copy's bytes come free
		lap := k / (len(p.Copies) / p.Turn())
		return timeline.StepEnd[lap*len(m.Steps)+p.Copies[k].Last]
	}
	for i, a := range p.Copies {
		for j, b := range p.Copies[:i] {
			shared := min(a.Offset+p.Pages[a.Page].Bytes, b.Offset+p.Pages[b.Page].Bytes) - max(a.Offset, b.Offset)
			if shared > 0 && timeline.CopyStart[i] < over(j) && timeline.CopyStart[j] < over(i) {
				t.Fatalf("copies %d and %d lie in the same bytes at the same time", j, i)
			}
		}
	}
}

func TestAPlanThatBreaksAPromiseIsFoundOut(t *testing.T) {
	m := uniform(8, 1<<20, 10_000)
	for want, damage := range map[string]func(p *planner.Plan){
		"laps":                  func(p *planner.Plan) { p.Laps = 3; p.Copies = slices.Concat(p.Copies, p.Copies, p.Copies) },
		"at most 2":             func(p *planner.Plan) { p.Copies, p.Laps = nil, 1<<40 },
		"no copy covers":        func(p *planner.Plan) { p.Copies[2].First++; p.Copies[2].Last++ },
		"do not lie":            func(p *planner.Plan) { p.Copies[1].Offset = p.Arena },
		"does not wait":         func(p *planner.Plan) { p.Copies[3].After = len(p.Copies) },
		"residents of":          func(p *planner.Plan) { p.Budget-- },
		"is missing":            func(p *planner.Plan) { p.Eviction = nil },
		"named twice":           func(p *planner.Plan) { p.Fill = append(p.Fill, p.Eviction) },
		"in 0 pages":            func(p *planner.Plan) { p.Pages[0].Units = nil; p.Pages[1].Units = nil; p.Pages = p.Pages[2:] },
		"is not streamed":       func(p *planner.Plan) { p.Pages[p.Copies[0].Page].Placement = planner.Unread },
		"there is no placement": func(p *planner.Plan) { p.Pages[0].Placement = 99 },
		"it is unread": func(p *planner.Plan) {
			i := p.Eviction[0]
			p.Eviction, p.Fill, p.Resident = p.Eviction[1:], nil, p.Resident-p.Pages[i].Bytes
			p.Pages[i].Placement = planner.Unread
		},
		"below the bound":    func(p *planner.Plan) { p.Bound = p.Period + 1 },
		"its 1 units have":   func(p *planner.Plan) { p.Pages[0].Bytes++ },
		"there is no unit 9": func(p *planner.Plan) { p.Pages[0].Units = []int{9} },
	} {
		p := built(t, m, pcie, planner.Options{Mode: planner.ModePage, Budget: 5 << 20, PagesAsGiven: true})
		p.Budget = p.Resident + p.Arena
		if err := p.Check(m); err != nil || len(p.Copies) < 4 || len(p.Eviction) == 0 {
			t.Fatalf("%v: %+v", err, p)
		}
		damage(&p)
		if err := p.Check(m); !errors.Is(err, planner.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, not %q", err, want)
		}
	}
}

func TestABoundOfManyUnitsAtOneLongStepDoesNotOverflow(t *testing.T) {
	m := planner.Manifest{Model: "ties", Recorded: true, Steps: []planner.Step{{CPU: planner.Largest - 1}}}
	for range 8200 {
		m.Units = append(m.Units, planner.Unit{Path: "u", Bytes: 1, Uses: []planner.Use{{First: 0, Last: 0}}})
	}
	for _, machine := range []planner.Machine{pcie, {Link: pcie.Link, Host: planner.Host{Rate: 1}}} {
		if got := planner.LPBound(m, machine, 12_000_000_000, true); got != 0 {
			t.Errorf("got %v", got)
		}
		if got := planner.LPBound(m, machine, 0, false); got >= planner.Largest || got < planner.Largest-3 {
			t.Errorf("got %v where nothing fits", got)
		}
	}
}

func FuzzBuild(f *testing.F) {
	f.Add(uint8(3), int64(1<<20), int64(5000), int64(math.MaxInt64), int64(25_000), 0, 2, uint8(0))
	f.Add(uint8(1), int64(0), int64(0), int64(0), int64(0), 0, 0, uint8(1))
	f.Add(uint8(255), int64(1<<62), int64(1<<62), int64(1), int64(1_000_000), -1, 9, uint8(2))
	f.Add(uint8(200), int64(7), int64(1), int64(1), int64(500), 3, 3, uint8(1))
	f.Add(uint8(40), int64(1<<20), int64(90_000), int64(1<<34), int64(40_000), 0, 0, uint8(2))
	f.Fuzz(func(t *testing.T, n uint8, bytes, compute, rate, share int64, first, last int, mode uint8) {
		m := planner.Manifest{Model: "hostile", Recorded: true}
		for i := range int(n) {
			m.Steps = append(m.Steps, planner.Step{Compute: planner.Nanoseconds(compute), CPU: planner.Nanoseconds(compute / 2), Activations: planner.Bytes(bytes / 3)})
			u := planner.Unit{Path: "same", Bytes: planner.Bytes(bytes), Parameters: bytes / 4, Uses: []planner.Use{{First: first, Last: last}, {First: last + 1, Last: last + 1}}}
			if mode > 127 { // one behind the other, of many sizes
				u.Bytes, u.Uses = planner.Bytes(bytes/int64(i+1)), []planner.Use{{First: i, Last: i}}
			}
			m.Units = append(m.Units, u)
		}
		o := planner.Options{Mode: planner.Modes()[mode%3], VRAM: planner.Share{MilliPercent: share}}
		machine := planner.Machine{Link: planner.Link{Latency: planner.Nanoseconds(share), Rate: planner.Bytes(rate)}, Host: planner.Host{Rate: planner.Bytes(rate)}, Free: planner.Bytes(share)}
		p, err := Build(m, machine, o)
		var small *TooSmallError
		if errors.As(err, &small) || errors.Is(err, planner.ErrInvalid) {
			return
		}
		if err != nil && o.VRAM != (planner.Share{}) {
			t.Fatal(err)
		}
		if timeline, wrong := planner.Evaluate(m, p, machine); err == nil && (wrong != nil || timeline.Period != p.Period || p.Bound > p.Period) {
			t.Errorf("%v: the plan says %v, and %v at least; it takes %v", wrong, p.Period, p.Bound, timeline.Period)
		}
	})
}

func BenchmarkBuild(b *testing.B) {
	for _, mode := range []planner.Mode{planner.ModePage, planner.ModeChunk} {
		for _, n := range []int{1000, 10_000} {
			for name, m := range map[string]planner.Manifest{"equal": uniform(n, 20<<20, 500_000), "mixed": mixed(n)} {
				b.Run(fmt.Sprintf("%s/%s/%d", mode, name, n), func(b *testing.B) {
					o := percent(40)
					o.Mode = mode
					b.ReportAllocs()
					for b.Loop() {
						built(b, m, pcie, o)
					}
				})
			}
		}
	}
}

// mixed is a chain of n units of all sizes up to 8 MiB and times up to 300 us, in no order.
func mixed(n int) planner.Manifest {
	sizes, times := make([]planner.Bytes, n), make([]planner.Nanoseconds, n)
	for i := range n {
		sizes[i] = planner.Bytes(scatter(1, i) * float64(8<<20))
		times[i] = planner.Nanoseconds(scatter(2, i) * 300_000)
	}
	return chainOf(sizes, times)
}

func TestAShareIsOfWeightsThatAreNotPagedToo(t *testing.T) {
	m := uniform(10, 1<<20, 50_000)
	m.Kept = 10 << 20
	p := built(t, m, pcie, percent(75))
	if p.Budget != 5<<20 {
		t.Errorf("75 %% of 20 MiB, of which 10 MiB are kept, leave %v", p.Budget)
	}
	_, err := Build(m, pcie, percent(40))
	var small *TooSmallError
	want := "a budget of 8.0 MiB for weights is too small"
	if !errors.As(err, &small) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "with the 10.0 MiB of weights that cannot be paged") {
		t.Errorf("got %v", err)
	}
}
