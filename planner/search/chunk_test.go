package search

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/optimem/optimem/planner"
)

// chunkOf is the chunk of a run of a plan's pages, from inclusive to exclusive.
func chunkOf(p planner.Plan, from, to int) planner.Plan {
	p.Pages = slices.Clone(p.Pages)
	p.Resident = 0
	for i := range p.Pages {
		switch {
		case p.Pages[i].Placement == planner.Unread:
		case from <= i && i < to:
			p.Pages[i].Placement = planner.Resident
			p.Resident += p.Pages[i].Bytes
		default:
			p.Pages[i].Placement = planner.OnCPU
		}
	}
	return p
}

func TestAChunkIsTheBestOfAllRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, machine := manifests(t), pcie
		machine.Link.Latency = planner.Nanoseconds(rapid.IntRange(0, 20_000).Draw(t, "latency"))
		machine.Host.Rate = planner.Bytes(rapid.SampledFrom([]int{0, 1_000_000_000, 50_000_000_000}).Draw(t, "bytes per second of RAM"))
		machine.Host.CrossRate = planner.Bytes(rapid.SampledFrom([]int{0, 10_000_000}).Draw(t, "bytes per second of activations"))
		o := planner.Options{Mode: planner.ModeChunk, Budget: 1 + m.Weights()*planner.Bytes(rapid.IntRange(0, 110).Draw(t, "percent"))/100}
		o.MaxLayerSize = int64(rapid.SampledFrom([]int{0, 0, 1000}).Draw(t, "layer"))
		p := built(t, m, machine, o)
		best := never
		read := len(p.Pages) - len(placements(p, planner.Unread))
		for from := range read + 1 {
			for to := from; to <= read; to++ {
				other := chunkOf(p, from, to)
				if other.Resident > o.Budget {
					continue
				}
				timeline, err := planner.Evaluate(m, other, machine)
				if err != nil {
					t.Fatal(err)
				}
				if best = min(best, timeline.Period); p.Bound > timeline.Period {
					t.Errorf("pages %d to %d take %v, the bound is %v", from, to, timeline.Period, p.Bound)
				}
			}
		}
		if p.Period != best {
			t.Errorf("the plan takes %v, the best run %v: %+v", p.Period, best, p.Pages)
		}
	})
}

func TestActivationsCrossAtTheBordersOfAChunkAlone(t *testing.T) {
	m := uniform(6, 1<<20, 1_000_000)
	for run, want := range map[[2]int][]int{{0, 0}: nil, {2, 4}: {2, 4}, {0, 3}: {0, 3}, {3, 6}: {3, -1}, {0, 6}: {0, -1}} {
		p := chunkOf(built(t, m, pcie, planner.Options{Mode: planner.ModeChunk, Budget: m.Weights()}), run[0], run[1])
		timeline, err := planner.Evaluate(m, p, pcie)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for s, crossing := range timeline.Crossing {
			if onDevice := run[0] <= s && s < run[1]; timeline.OnCPU[s] == onDevice {
				t.Errorf("pages %v: step %d is on the CPU: %v", run, s, timeline.OnCPU[s])
			}
			if crossing > 0 {
				got = append(got, s)
			}
		}
		if timeline.Back > 0 {
			got = append(got, -1)
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages %v: activations cross before %v, not %v", run, got, want)
		}
	}
}
