package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/optimem/optimem/internal/laps"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

var machine = planner.Machine{Link: planner.Link{Latency: 10_000, Rate: 12_000_000_000}}

// tooSmall tells whether a drawn budget cannot work, which says nothing of what is tested; no other error is expected.
func tooSmall(t *rapid.T, err error) bool {
	var small *search.TooSmallError
	if err != nil && !errors.As(err, &small) {
		t.Fatal(err)
	}
	return err != nil
}

// drawn is a process under a plan for a drawn model.
func drawn(t *rapid.T) Process {
	m := planner.Manifest{Model: "drawn", Recorded: true}
	for i := range rapid.IntRange(1, 20).Draw(t, "steps") {
		path := rapid.StringN(1, 20, 40).Draw(t, "path")
		m.Steps = append(m.Steps, planner.Step{Compute: planner.Nanoseconds(rapid.IntRange(0, 90_000).Draw(t, "compute")), CPU: 200_000, Crossing: 900})
		m.Units = append(m.Units, planner.Unit{
			Path: path, Bytes: planner.Bytes(rapid.IntRange(1, 1<<20).Draw(t, "bytes")), Parameters: 1, Readers: []string{path}, Uses: []planner.Use{{First: i, Last: i}},
		})
	}
	mode := rapid.SampledFrom(planner.Modes()).Draw(t, "mode")
	p, err := search.Build(m, machine, planner.Options{Mode: mode, Budget: max(1, m.Weights()*planner.Bytes(rapid.IntRange(20, 110).Draw(t, "percent"))/100)})
	if tooSmall(t, err) {
		t.Skip(err)
	}
	return process(t, m, p)
}

func process(t rapid.TB, m planner.Manifest, p planner.Plan) Process {
	l, err := laps.Of(m, p, machine)
	if err != nil {
		t.Fatal(err)
	}
	return Process{Name: m.Model, Manifest: m, Plan: p, Laps: l, Facts: map[string]any{"measured_period_ns": 5}}
}

// An entry is an event as a reader of the format sees it: what is missing is nil.
type entry struct {
	Phase    *string        `json:"ph"`
	Name     *string        `json:"name"`
	Time     *json.Number   `json:"ts"`
	Duration *json.Number   `json:"dur"`
	Process  *int           `json:"pid"`
	Thread   *int           `json:"tid"`
	Args     map[string]any `json:"args"`
}

func read(t rapid.TB, processes ...Process) (facts map[string]any, events []entry) {
	var out bytes.Buffer
	if err := Write(&out, processes); err != nil {
		t.Fatal(err)
	}
	var file struct {
		Unit   string         `json:"displayTimeUnit"`
		Facts  map[string]any `json:"otherData"`
		Events []entry        `json:"traceEvents"`
	}
	if err := json.Unmarshal(out.Bytes(), &file); err != nil || file.Unit != "ns" {
		t.Fatalf("%v in %.300s", err, out.String())
	}
	return file.Facts, file.Events
}

// nanoseconds reads a number of microseconds that has three digits behind its point.
func nanoseconds(t rapid.TB, number *json.Number) int64 {
	whole, part, found := strings.Cut(number.String(), ".")
	var us, ns int64
	if _, err := fmt.Sscan(whole+" "+strings.TrimLeft(part, "0")+"0", &us, &ns); err != nil || !found || len(part) != 3 {
		t.Fatalf("%q is no time in microseconds with three digits behind the point", number.String())
	}
	return 1000*us + ns/10
}

func TestEveryEventIsOfTheFormat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, events := read(t, drawn(t), drawn(t))
		before := int64(0)
		ends := map[[2]int][]int64{} // of the slices that are open on a thread
		for i, e := range events {
			if e.Phase == nil || e.Name == nil || e.Time == nil || e.Process == nil || e.Thread == nil {
				t.Fatalf("event %d lacks a field: %+v", i, e)
			}
			at := nanoseconds(t, e.Time)
			if at < before {
				t.Errorf("event %d at %d comes after one at %d", i, at, before)
			}
			before = at
			switch *e.Phase {
			case "X":
				thread := [2]int{*e.Process, *e.Thread}
				open := ends[thread]
				for len(open) > 0 && open[len(open)-1] <= at {
					open = open[:len(open)-1]
				}
				end := at + nanoseconds(t, e.Duration)
				if len(open) > 0 && end > open[len(open)-1] {
					t.Errorf("event %d overlaps the one before it: %v", i, *e.Name)
				}
				ends[thread] = append(open, end)
			case "C", "M":
				if len(e.Args) == 0 || e.Duration != nil {
					t.Errorf("event %d: %+v", i, e)
				}
			default:
				t.Errorf("event %d is of the kind %q", i, *e.Phase)
			}
		}
	})
}

// even is a model whose copies take longer than its steps.
func even(t testing.TB) Process {
	m := planner.Manifest{Model: "even", Recorded: true}
	for i := range 12 {
		m.Steps = append(m.Steps, planner.Step{Compute: 100_001})
		m.Units = append(m.Units, planner.Unit{Path: fmt.Sprint("layer", i), Bytes: 8 << 20, Readers: []string{"x"}, Uses: []planner.Use{{First: i, Last: i}}})
	}
	p, err := search.Build(m, machine, planner.Options{Mode: planner.ModePage, Budget: 24 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return process(t, m, p)
}

func TestTwoLapsAreThere(t *testing.T) {
	p := even(t)
	p.Stalls = make([]planner.Nanoseconds, len(p.Plan.Pages))
	facts, events := read(t, p)
	count := map[string]int{}
	for _, e := range events {
		count[*e.Phase]++
		if *e.Phase == "X" && *e.Name == "stall" {
			count["stall"]++
		}
		if *e.Phase == "M" && *e.Name == "thread_name" {
			count[e.Args["name"].(string)]++
		}
	}
	if want := len(p.Plan.Copies) + 2*12 + p.Laps.Stalls(); p.Plan.Laps != 2 || count["X"] != want || count["stall"] != p.Laps.Stalls() || count["stall"] == 0 {
		t.Errorf("%v, want %d slices with %d stalls", count, want, p.Laps.Stalls())
	}
	if count["copy"] != 1 || count["compute"] != 1 || count["CPU"] != 0 || count["C"] == 0 {
		t.Errorf("%v", count)
	}
	told := facts["processes"].([]any)[0].(map[string]any)
	if told["measured_period_ns"] != 5.0 || told["predicted_period_ns"] != float64(p.Plan.Period) || len(told["measured_stall_ns_per_page"].([]any)) != len(p.Stalls) {
		t.Errorf("%v", told)
	}
}

func TestTheCounterStaysWithinTheBudget(t *testing.T) {
	p := even(t)
	_, events := read(t, p)
	for _, e := range events {
		if *e.Phase == "C" && e.Args["resident"].(float64)+e.Args["arena"].(float64) > float64(p.Plan.Budget) {
			t.Errorf("%v is above %d", e.Args, p.Plan.Budget)
		}
	}
}

func TestAHostileNameStaysAName(t *testing.T) {
	p := even(t)
	p.Name = "\"}]</script>\x00\u202e" + strings.Repeat("x", 10<<20)
	var out bytes.Buffer
	if err := Write(&out, []Process{p}); err != nil || out.Len() > 1<<20 || !json.Valid(out.Bytes()) {
		t.Errorf("%v, %d bytes", err, out.Len())
	}
}
