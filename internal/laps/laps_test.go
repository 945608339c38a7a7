package laps

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

var machine = planner.Machine{Link: planner.Link{Latency: 10_000, Rate: 12_000_000_000}}

// drawn is a recorded model with uses that are short, long and repeated.
func drawn(t *rapid.T) planner.Manifest {
	steps := rapid.IntRange(1, 20).Draw(t, "steps")
	m := planner.Manifest{Model: "drawn", Recorded: true}
	for range steps {
		compute := planner.Nanoseconds(rapid.IntRange(0, 100_000).Draw(t, "compute"))
		m.Steps = append(m.Steps, planner.Step{Compute: compute, CPU: 3 * compute, Crossing: planner.Bytes(rapid.IntRange(0, 1000).Draw(t, "crossing"))})
	}
	for i := range rapid.IntRange(1, 12).Draw(t, "units") {
		path := fmt.Sprintf("m%d.u%d", i/3, i)
		u := planner.Unit{Path: path, Bytes: planner.Bytes(rapid.IntRange(0, 1<<20).Draw(t, "bytes")), Parameters: 10, Readers: []string{path}}
		for at := rapid.IntRange(0, steps).Draw(t, "first"); at < steps && len(u.Uses) < 3; at += rapid.IntRange(1, steps).Draw(t, "gap") {
			last := min(steps-1, at+rapid.SampledFrom([]int{0, 0, 0, 1, 5}).Draw(t, "span"))
			u.Uses = append(u.Uses, planner.Use{First: at, Last: last})
			at = last
		}
		m.Units = append(m.Units, u)
	}
	return m
}

// equal is a recorded model of units of 8 MiB, each read in one step.
func equal(units int, compute planner.Nanoseconds) planner.Manifest {
	m := planner.Manifest{Model: "equal", Recorded: true}
	for i := range units {
		m.Steps = append(m.Steps, planner.Step{Compute: compute, CPU: 3 * compute})
		m.Units = append(m.Units, planner.Unit{Path: fmt.Sprint(i), Bytes: 8 << 20, Readers: []string{"x"}, Uses: []planner.Use{{First: i, Last: i}}})
	}
	return m
}

// tooSmall tells whether a drawn budget cannot work, which says nothing of what is tested; no other error is expected.
func tooSmall(t *rapid.T, err error) bool {
	var small *search.TooSmallError
	if err != nil && !errors.As(err, &small) {
		t.Fatal(err)
	}
	return err != nil
}

// planned is a plan for a drawn model within a drawn budget.
func planned(t *rapid.T) (planner.Manifest, planner.Plan) {
	m := drawn(t)
	if rapid.Bool().Draw(t, "equal units") { // whose ring often turns once in two laps
		m = equal(rapid.IntRange(4, 12).Draw(t, "units"), planner.Nanoseconds(rapid.IntRange(0, 1_000_000).Draw(t, "compute")))
	}
	o := planner.Options{
		Mode:   rapid.SampledFrom([]planner.Mode{planner.ModePage, planner.ModePage, planner.ModeChunk, planner.ModeAuto}).Draw(t, "mode"),
		Budget: max(1, m.Weights()*planner.Bytes(rapid.IntRange(1, 110).Draw(t, "percent"))/100),
	}
	p, err := search.Build(m, machine, o)
	if tooSmall(t, err) {
		t.Skip(err)
	}
	return m, p
}

func TestLapsOfAnyPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, p := planned(t)
		l, err := Of(m, p, machine)
		if err != nil {
			t.Fatal(err)
		}
		slicesAreThoseOfTheTimeline(t, m, l)
		copiesAndComputationEachGoOneAfterTheOther(t, l)
		memoryStaysWithinTheBudget(t, p, l)
	})
}

func TestActivationsThatCrossWaitForCopiesBeforeThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := equal(rapid.IntRange(4, 12).Draw(t, "units"), planner.Nanoseconds(rapid.IntRange(100_000, 400_000).Draw(t, "compute")))
		p, err := search.Build(m, machine, planner.Options{
			Mode: planner.ModeAuto, Budget: m.Weights() * planner.Bytes(rapid.IntRange(20, 60).Draw(t, "percent")) / 100, PagesAsGiven: true,
		})
		if tooSmall(t, err) {
			t.Skip(err)
		}
		l, err := Of(m, p, machine)
		if err != nil {
			t.Fatal(err)
		}
		slicesAreThoseOfTheTimeline(t, m, l)
		copiesAndComputationEachGoOneAfterTheOther(t, l)
	})
}

func slicesAreThoseOfTheTimeline(t *rapid.T, m planner.Manifest, l Laps) {
	timeline := l.Timeline
	stalls := 0
	for _, s := range l.Slices() {
		shift := planner.Nanoseconds(s.Lap/l.inTurn())*l.turn - timeline.Begin
		start, end := s.Start-shift, s.End-shift
		step := s.Lap%l.inTurn()*len(m.Steps) + s.Step
		switch {
		case s.Stall:
			stalls++
			if end != timeline.CopyEnd[s.Copy] || end-start != timeline.Stall[s.Copy] {
				t.Errorf("stall %+v is not the timeline's", s)
			}
		case s.Engine == Copy:
			if start != timeline.CopyStart[s.Copy] || end != timeline.CopyEnd[s.Copy] {
				t.Errorf("copy %+v is not the timeline's", s)
			}
		case s.Engine == Crossing:
			wantEnd, takes := timeline.LapEnd[s.Lap%l.inTurn()], timeline.Back
			if s.Step >= 0 {
				wantEnd, takes = timeline.CrossEnd[step], timeline.Crossing[s.Step]
			}
			if end != wantEnd || end-start != takes {
				t.Errorf("crossing %+v is not the timeline's", s)
			}
		case start != timeline.StepStart[step] || end != timeline.StepEnd[step]:
			t.Errorf("step %+v is not the timeline's", s)
		}
	}
	if stalls != l.Stalls() {
		t.Errorf("%d stalls, the timeline has %d", stalls, l.Stalls())
	}
}

func copiesAndComputationEachGoOneAfterTheOther(t *rapid.T, l Laps) {
	for name, all := range map[string][]Slice{"whole": l.Slices(), "within": l.Within()} {
		busy := map[bool]planner.Nanoseconds{true: -1 << 60, false: -1 << 60}
		for _, s := range all {
			if s.Start < busy[s.Engine == Copy] {
				t.Errorf("%s: %+v starts before %d", name, s, busy[s.Engine == Copy])
			}
			busy[s.Engine == Copy] = s.End
		}
	}
}

func memoryStaysWithinTheBudget(t *rapid.T, p planner.Plan, l Laps) {
	before := planner.Nanoseconds(-1)
	for _, level := range l.Memory {
		if level.At <= before || level.Bytes < p.Resident || level.Bytes > p.Resident+p.Arena || level.Bytes > p.Budget {
			t.Errorf("%+v after %d, with %d resident, an arena of %d and a budget of %d", level, before, p.Resident, p.Arena, p.Budget)
		}
		before = level.At
	}
}

func TestLapsOfOneUseAUnitFollowEachOtherByAPeriod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := planner.Manifest{Model: "chain", Recorded: true}
		for i := range rapid.IntRange(4, 12).Draw(t, "units") {
			m.Steps = append(m.Steps, planner.Step{Compute: planner.Nanoseconds(rapid.IntRange(0, 800_000).Draw(t, "compute"))})
			m.Units = append(m.Units, planner.Unit{
				Path: fmt.Sprint(i), Bytes: planner.Bytes(rapid.IntRange(0, 8<<20).Draw(t, "bytes")), Readers: []string{"x"}, Uses: []planner.Use{{First: i, Last: i}},
			})
		}
		p, err := search.Build(m, machine, planner.Options{
			Mode: planner.ModePage, Budget: max(1, m.Weights()*planner.Bytes(rapid.IntRange(15, 95).Draw(t, "percent"))/100), PagesAsGiven: true,
		})
		if tooSmall(t, err) {
			t.Skip(err)
		}
		if l, err := Of(m, p, machine); err != nil || !l.Repeats {
			t.Errorf("%v: a turn of %d laps lasts %v, the period is %v", err, l.inTurn(), l.turn, l.Timeline.Period)
		}
	})
}

func TestTwoLapsAreOneTurnOfARingOfTwoLaps(t *testing.T) {
	m := equal(12, 100_000)
	p, err := search.Build(m, machine, planner.Options{Mode: planner.ModePage, Budget: 24 << 20})
	if err != nil || p.Laps != 2 {
		t.Fatalf("%v: a ring of %d laps is no test", err, p.Laps)
	}
	l, err := Of(m, p, machine)
	if err != nil || !l.Repeats || l.Window != l.turn || l.Stalls() == 0 || l.Peak() > p.Budget || l.Peak() <= p.Resident {
		t.Errorf("%v: %+v", err, l)
	}
	if off := l.Window - 2*p.Period; off > 0 || off < -1 {
		t.Errorf("two laps take %v, the period is %v", l.Window, p.Period)
	}
	count := map[[2]int]int{} // of copies, by lap and page
	for _, s := range l.Slices() {
		if s.Engine == Copy {
			count[[2]int{s.Lap, p.Copies[s.Copy].Page}]++
		}
	}
	if len(count) != len(p.Copies) || 2*len(placed(p, planner.Streamed)) != len(p.Copies) {
		t.Errorf("%d of %d copies are there: %v", len(count), len(p.Copies), count)
	}
}

func placed(p planner.Plan, want planner.Placement) (pages []int) {
	for i, page := range p.Pages {
		if page.Placement == want {
			pages = append(pages, i)
		}
	}
	return pages
}

func TestAPlanBeforeTheRecordingHasNothingToTell(t *testing.T) {
	m := planner.Manifest{Model: "new", Units: []planner.Unit{{Path: "a", Bytes: 10}}}
	p, err := search.Build(m, machine, planner.Options{Mode: planner.ModePage, Budget: 24})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := Of(m, p, machine); err != nil || l.Known() || len(l.Slices()) > 0 {
		t.Errorf("%v: %+v", err, l)
	}
}

// alternating is a timeline whose steps change sides every other step.
func alternating(n int) (t planner.Timeline) {
	var now planner.Nanoseconds
	for s := range n {
		side := s%4 >= 2
		var crossing planner.Nanoseconds
		if s > 0 && s%2 == 0 {
			crossing = 30
		}
		now += crossing
		t.StepStart, t.OnCPU, t.Crossing = append(t.StepStart, now), append(t.OnCPU, side), append(t.Crossing, crossing)
		t.CrossEnd = append(t.CrossEnd, now)
		now += 100
		t.StepEnd = append(t.StepEnd, now)
	}
	t.Period, t.First, t.LapEnd = now, now, []planner.Nanoseconds{now}
	return t
}

func TestStepsOnBothSides(t *testing.T) {
	l := From(alternating(8), planner.Plan{Mode: planner.ModeChunk, Resident: 5})
	count := map[Engine]int{}
	for _, s := range l.Within() {
		count[s.Engine]++
	}
	if !l.Repeats || l.Second != 890 || l.Window != 2*890 || count[CPU] != 8 || count[Device] != 8 || count[Crossing] != 6 || count[Copy] != 0 {
		t.Errorf("%v: %+v", count, l)
	}
	if len(l.Memory) != 1 || l.Memory[0].Bytes != 5 {
		t.Errorf("%+v", l.Memory)
	}
}

func TestTheSecondLapStartsWhenTheResultOfTheFirstIsBack(t *testing.T) {
	timeline := planner.Timeline{
		Period: 15, Begin: 100, LapEnd: []planner.Nanoseconds{115, 130}, Back: 5, OnCPU: []bool{true}, Crossing: []planner.Nanoseconds{0},
		StepStart: []planner.Nanoseconds{100, 115}, StepEnd: []planner.Nanoseconds{110, 125}, CrossEnd: []planner.Nanoseconds{100, 115},
	}
	for _, ringLaps := range []int{2, 1} {
		if ringLaps == 1 {
			timeline.LapEnd, timeline.CrossEnd = timeline.LapEnd[:1], timeline.CrossEnd[:1]
			timeline.StepStart, timeline.StepEnd = timeline.StepStart[:1], timeline.StepEnd[:1]
		}
		if l := From(timeline, planner.Plan{Laps: ringLaps}); l.Second != 15 || l.Window != 30 {
			t.Errorf("a ring of %d laps: the second starts at %d and ends at %d", ringLaps, l.Second, l.Window)
		}
	}
}
