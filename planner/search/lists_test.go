package search

import (
	"errors"
	"fmt"

	"pgregory.net/rapid"

	"github.com/optimem/optimem/planner"
)

// manifests draws models whose units are used once, often, over spans of steps, or never.
func manifests(t *rapid.T) planner.Manifest {
	steps := rapid.IntRange(1, 24).Draw(t, "steps")
	m := planner.Manifest{Model: "drawn", Recorded: true}
	for range steps {
		m.Steps = append(m.Steps, planner.Step{
			Compute: planner.Nanoseconds(rapid.IntRange(0, 100_000).Draw(t, "compute")), CPU: planner.Nanoseconds(rapid.IntRange(0, 300_000).Draw(t, "cpu")),
			Activations: planner.Bytes(rapid.IntRange(0, 1000).Draw(t, "activations")), Crossing: planner.Bytes(rapid.IntRange(0, 1000).Draw(t, "crossing")),
		})
	}
	for i := range rapid.IntRange(1, 16).Draw(t, "units") {
		path := fmt.Sprintf("m%d.u%d", i/3, i)
		u := planner.Unit{Path: path, Bytes: planner.Bytes(rapid.IntRange(0, 1<<20).Draw(t, "bytes")), Parameters: int64(rapid.IntRange(0, 1000).Draw(t, "parameters")), Readers: []string{path}}
		for at := rapid.IntRange(0, steps).Draw(t, "first"); at < steps && len(u.Uses) < 3; at += rapid.IntRange(1, steps).Draw(t, "gap") {
			last := min(steps-1, at+rapid.SampledFrom([]int{0, 0, 0, 1, 5}).Draw(t, "span"))
			u.Uses = append(u.Uses, planner.Use{First: at, Last: last})
			at = last
		}
		m.Units = append(m.Units, u)
	}
	return m
}

func percent(p int64) planner.Options {
	return planner.Options{Mode: planner.ModePage, VRAM: planner.Share{MilliPercent: p * 1000}}
}

// built is a plan that must be possible.
func built(t rapid.TB, m planner.Manifest, machine planner.Machine, o planner.Options) planner.Plan {
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

func placements(p planner.Plan, want planner.Placement) (pages []int) {
	for i, page := range p.Pages {
		if page.Placement == want {
			pages = append(pages, i)
		}
	}
	return pages
}
