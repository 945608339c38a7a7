package planner

import (
	"errors"
	"fmt"

	"pgregory.net/rapid"
)

// chain is a recorded model of units used once each, one step apart, in list order.
func chainOf(bytes []Bytes, compute []Nanoseconds) Manifest {
	m := Manifest{Model: "chain", Recorded: true}
	for i := range bytes {
		m.Steps = append(m.Steps, Step{Compute: compute[i], CPU: 3 * compute[i]})
		path := fmt.Sprintf("layers.%d", i)
		m.Units = append(m.Units, Unit{Path: path, Bytes: bytes[i], Parameters: int64(bytes[i] / 4), Readers: []string{path}, Uses: []Use{{i, i}}})
	}
	return m
}

// uniform is a chain of n equal units.
func uniform(n int, bytes Bytes, compute Nanoseconds) Manifest {
	sizes, times := make([]Bytes, n), make([]Nanoseconds, n)
	for i := range n {
		sizes[i], times[i] = bytes, compute
	}
	return chainOf(sizes, times)
}

// manifests draws models whose units are used once, often, over spans of steps, or never.
func manifests(t *rapid.T) Manifest {
	steps := rapid.IntRange(1, 24).Draw(t, "steps")
	m := Manifest{Model: "drawn", Recorded: true}
	for range steps {
		m.Steps = append(m.Steps, Step{
			Compute: Nanoseconds(rapid.IntRange(0, 100_000).Draw(t, "compute")), CPU: Nanoseconds(rapid.IntRange(0, 300_000).Draw(t, "cpu")),
			Activations: Bytes(rapid.IntRange(0, 1000).Draw(t, "activations")), Crossing: Bytes(rapid.IntRange(0, 1000).Draw(t, "crossing")),
		})
	}
	for i := range rapid.IntRange(1, 16).Draw(t, "units") {
		path := fmt.Sprintf("m%d.u%d", i/3, i)
		u := Unit{Path: path, Bytes: Bytes(rapid.IntRange(0, 1<<20).Draw(t, "bytes")), Parameters: int64(rapid.IntRange(0, 1000).Draw(t, "parameters")), Readers: []string{path}}
		for at := rapid.IntRange(0, steps).Draw(t, "first"); at < steps && len(u.Uses) < 3; at += rapid.IntRange(1, steps).Draw(t, "gap") {
			last := min(steps-1, at+rapid.SampledFrom([]int{0, 0, 0, 1, 5}).Draw(t, "span"))
			u.Uses = append(u.Uses, Use{at, last})
			at = last
		}
		m.Units = append(m.Units, u)
	}
	return m
}

var pcie = Machine{Link: Link{10_000, 12_000_000_000}}

func percent(p int64) Options { return Options{Mode: ModePage, VRAM: Share{MilliPercent: p * 1000}} }

// built is a plan that must be possible.
func built(t rapid.TB, m Manifest, machine Machine, o Options) Plan {
	t.Helper()
	p, err := Build(m, machine, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tooSmall tells whether a budget cannot work, which says nothing of what is tested; no other error is expected.
func tooSmall(t rapid.TB, err error) bool {
	t.Helper()
	var small *TooSmallError
	if err != nil && !errors.As(err, &small) {
		t.Fatal(err)
	}
	return err != nil
}

func placements(p Plan, want Placement) (pages []int) {
	for i, page := range p.Pages {
		if page.Placement == want {
			pages = append(pages, i)
		}
	}
	return pages
}
