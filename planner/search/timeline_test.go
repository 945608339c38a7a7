package search

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/optimem/optimem/planner"
)

func TestScalingTimeScalesThePeriod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := manifests(t)
		machine := planner.Machine{Link: planner.Link{Latency: planner.Nanoseconds(rapid.IntRange(0, 9_000).Draw(t, "latency")), Rate: 1_000_000_000}} // whole ns per byte
		p, err := Build(m, machine, percent(int64(rapid.IntRange(10, 100).Draw(t, "share"))))
		if tooSmall(t, err) {
			return
		}
		slow := m
		slow.Steps = append([]planner.Step(nil), m.Steps...)
		for i := range slow.Steps {
			slow.Steps[i].Compute *= 4
		}
		timeline, _ := planner.Evaluate(slow, p, planner.Machine{Link: planner.Link{Latency: 4 * machine.Link.Latency, Rate: machine.Link.Rate / 4}})
		if timeline.Period != 4*p.Period {
			t.Fatalf("%d at quarter speed, %d before", int64(timeline.Period), int64(p.Period))
		}
	})
}

func TestTheStepsAndCrossingsOfAPlanFillItsPeriod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := manifests(t)
		o := percent(int64(rapid.IntRange(1, 110).Draw(t, "share")))
		o.Mode = rapid.SampledFrom([]planner.Mode{planner.ModeChunk, planner.ModeAuto}).Draw(t, "mode")
		p, err := Build(m, pcie, o)
		if tooSmall(t, err) || p.Laps > 1 {
			return
		}
		timeline, err := planner.Evaluate(m, p, pcie)
		if err != nil {
			t.Fatal(err)
		}
		var sum planner.Nanoseconds
		for s, step := range m.Steps {
			takes := step.Compute
			if timeline.OnCPU != nil && timeline.OnCPU[s] {
				takes = step.CPU
			}
			if got := timeline.StepEnd[s] - timeline.StepStart[s]; got != takes {
				t.Errorf("step %d takes %v, not %v", s, got, takes)
			}
			if sum += takes; timeline.Crossing != nil {
				sum += timeline.Crossing[s]
			}
		}
		sum += timeline.Back
		if len(p.Copies) == 0 && sum != p.Period {
			t.Errorf("steps and crossings take %v, the period is %v", sum, p.Period)
		}
	})
}

func TestNoPlanBeatsTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "n")
		sizes, times := make([]planner.Bytes, n), make([]planner.Nanoseconds, n)
		for i := range n {
			sizes[i] = planner.Bytes(512 * rapid.IntRange(1, 2000).Draw(t, "size"))
			times[i] = planner.Nanoseconds(rapid.IntRange(0, 200_000).Draw(t, "time"))
		}
		m := chainOf(sizes, times)
		budget := m.Weights() * planner.Bytes(rapid.IntRange(20, 95).Draw(t, "percent")) / 100
		bound := planner.Bound(m, pcie, budget)
		if best, found := newOracle(m, pcie).best(budget); found && best < float64(bound) {
			t.Fatalf("a set of residents takes %.1f, the bound is %d", best, int64(bound))
		}
	})
}
