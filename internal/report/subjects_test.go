package report

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/optimem/optimem/internal/laps"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

var machine = planner.Machine{Free: 12 << 30, Link: planner.Link{Latency: 10_000, Rate: 12_000_000_000}}

// convolutions is a recorded model of units whose sizes grow towards its end, as those of a convolutional network do.
func convolutions(units int, weights planner.Bytes, compute planner.Nanoseconds) planner.Manifest {
	m := planner.Manifest{Model: "network", Recorded: true}
	var sum float64
	sizes := make([]float64, units)
	for i := range sizes {
		sizes[i] = math.Exp(2*float64(i)/float64(units)) * (1 + 0.8*math.Sin(float64(7*i)))
		sum += sizes[i]
	}
	for i := range units {
		path := fmt.Sprintf("layer%d.%d.conv", 1+4*i/units, i)
		size := planner.Bytes(float64(weights) * sizes[i] / sum)
		time := planner.Nanoseconds(float64(compute) / float64(units) * (1 + 0.5*math.Cos(float64(3*i))))
		m.Steps = append(m.Steps, planner.Step{Compute: time, CPU: 12 * time, Activations: 6 << 20, Crossing: 64 << 10})
		m.Units = append(m.Units, planner.Unit{Path: path, Kind: "Conv2d", Bytes: size, Parameters: int64(size) / 4, Readers: []string{path}, Uses: []planner.Use{{First: i, Last: i}}})
	}
	return m
}

// equal is a recorded model of units of one size, whose ring turns once in two laps.
func equal() planner.Manifest {
	m := planner.Manifest{Model: "equal", Recorded: true}
	for i := range 12 {
		path := fmt.Sprintf("blocks.%d", i)
		m.Steps = append(m.Steps, planner.Step{Compute: 100_000, Activations: 6 << 20})
		m.Units = append(m.Units, planner.Unit{Path: path, Bytes: 8 << 20, Readers: []string{path}, Uses: []planner.Use{{First: i, Last: i}}})
	}
	return m
}

// estimated is a subject whose times nobody measured.
func estimated(s Subject) Subject {
	s.Estimated, s.Simulated, s.Device = true, false, ""
	s.Remarks = []string{"compute_ns is missing for 3 units: they count as 0."}
	return s
}

// subject plans a model for a share of its weights, curve included. Where units are some tens, every unit is a page: to try many
// groupings takes long, and the report draws them alike.
func subject(t testing.TB, m planner.Manifest, mode planner.Mode, percent planner.Bytes) Subject {
	t.Helper()
	o := planner.Options{Mode: mode, Budget: max(1, m.Weights()*percent/100), PagesAsGiven: len(m.Units) > 30 && len(m.Units) < 1000}
	p, err := search.Build(m, machine, o)
	if err != nil {
		t.Fatal(err)
	}
	var budgets []planner.Bytes // every sixth, for each takes its time
	for i, budget := range Budgets(m.Weights(), p.Budget) {
		if i%6 == 0 || budget == p.Budget {
			budgets = append(budgets, budget)
		}
	}
	curve, err := search.Curve(m, machine, o, budgets)
	if err != nil {
		t.Fatal(err)
	}
	return Subject{
		Model: "torchvision:resnet101", Device: "Simulated NVIDIA GeForce RTX 3060", Simulated: true,
		Manifest: m, Machine: machine, Plan: p, Curve: curve,
	}
}

func (s Subject) laps(t testing.TB) laps.Laps {
	t.Helper()
	l, err := laps.Of(s.Manifest, s.Plan, s.Machine)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ran adds what a run measured.
func ran(s Subject) Subject {
	equal := true
	s.Run = &Run{
		Forwards: 5, Period: s.Plan.Period * 101 / 100, Plain: 3_305_419, Bound: s.Plan.Bound, Peak: 55 << 20, Moved: 850 << 20, Equal: &equal,
		Notes: []string{"tabby cat, 93 %"},
	}
	return s
}

// hostile has names that try to be more than names.
func hostile(t testing.TB) Subject {
	s := ran(subject(t, convolutions(30, 40<<20, 2_000_000), planner.ModePage, 40))
	const attack = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\u202e\x00\x1b[2J'\"`{{.}}"
	s.Model, s.Device = attack, attack
	for i := range s.Manifest.Units {
		s.Manifest.Units[i].Path = attack + fmt.Sprint(i)
	}
	long := make([]byte, 10<<20)
	for i := range long {
		long[i] = 'x'
	}
	s.Manifest.Units[3].Path = string(long)
	s.Run.Notes = []string{attack, string(long)}
	return s
}

var (
	making sync.Once
	made   map[string]Subject
)

// subjects are what the page is tried with.
func subjects(t testing.TB) map[string]Subject {
	making.Do(func() { made = makeSubjects(t) })
	return made
}

func makeSubjects(t testing.TB) map[string]Subject {
	tiny := convolutions(1, 4096, 1000)
	unread := convolutions(12, 30<<20, 1_500_000)
	unread.Units = append(unread.Units, planner.Unit{Path: "head.spare", Bytes: 4 << 20, Readers: []string{"head"}})
	registered := planner.Manifest{Model: "new", Units: []planner.Unit{{Path: "a", Bytes: 10}}}
	early := Subject{Model: "not yet recorded", Manifest: registered, Machine: machine}
	var err error
	if early.Plan, err = search.Build(registered, machine, planner.Options{Mode: planner.ModePage, Budget: 24}); err != nil {
		t.Fatal(err)
	}
	return map[string]Subject{
		"page":    ran(subject(t, convolutions(104, 178<<20, 3_300_000), planner.ModePage, 25)),
		"plan":    subject(t, convolutions(104, 178<<20, 8_300_000), planner.ModePage, 60),
		"chunk":   ran(subject(t, convolutions(104, 178<<20, 3_300_000), planner.ModeChunk, 25)),
		"big":     subject(t, convolutions(10_000, 13<<30, 300_000_000), planner.ModePage, 50),
		"tiny":    subject(t, tiny, planner.ModePage, 110),
		"three":   estimated(subject(t, convolutions(3, 40<<20, 9_000_000), planner.ModePage, 70)),
		"all":     ran(subject(t, convolutions(60, 178<<20, 3_300_000), planner.ModePage, 100)),
		"auto":    subject(t, convolutions(60, 178<<20, 600_000), planner.ModeAuto, 30),
		"turn":    subject(t, equal(), planner.ModePage, 25),
		"unread":  subject(t, unread, planner.ModePage, 60),
		"hostile": hostile(t),
		"early":   early,
	}
}
