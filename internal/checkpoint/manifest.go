package checkpoint

import (
	"fmt"
	"strings"

	"github.com/optimem/optimem/internal/safetensors"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/contract"
	"github.com/optimem/optimem/simgpu"
)

// alignment is where the worker lets every tensor begin, in bytes.
const alignment = 256

// A Guess is what times are estimated by.
type Guess struct {
	Card  simgpu.Card
	Host  simgpu.Host
	Reuse int64 // how often a weight is used in one forward; 0: not known, and no time is
}

// Machine is the card with all of its memory, its link and the host.
func (g Guess) Machine() contract.Machine {
	link := g.Card.Link
	return contract.Machine{Machine: planner.Machine{
		Free: planner.Bytes(g.Card.MemoryBytes),
		Link: planner.Link{Latency: planner.Nanoseconds(link.LatencyNS), Rate: planner.Bytes(link.Pinned)},
		Host: planner.Host{Rate: planner.Bytes(g.Host.Rates.Bytes), CrossRate: planner.Bytes(link.Pageable)},
	}}
}

// Manifest is the manifest of a model of that name.
func Manifest(model string, tensors []safetensors.Tensor, g Guess) contract.Manifest {
	b := builder{units: map[string]int{}, laid: map[data]bool{}}
	b.m.Model, b.m.Recorded = model, true
	all := modules(tensors)
	shared := sharers(all)
	for step, module := range all {
		b.m.Steps = append(b.m.Steps, g.step(module))
		for _, t := range module.tensors {
			b.add(step, module.path, t, shared[dataOf(t)])
		}
	}
	out := contract.FromPlanner(b.m)
	out.Estimated, out.Notes = true, g.notes()
	return out
}

// sharers lists for every piece of data the modules that own it, in the order in which they are read.
func sharers(modules []module) map[data][]string {
	out := map[data][]string{}
	for _, m := range modules {
		for _, t := range m.tensors {
			at := dataOf(t)
			if last := len(out[at]) - 1; last < 0 || out[at][last] != m.path {
				out[at] = append(out[at], m.path)
			}
		}
	}
	return out
}

type builder struct {
	m     planner.Manifest
	units map[string]int // by the modules that read them
	laid  map[data]bool
}

// add puts a tensor into the unit of all that has the same readers; data that is there already counts once.
func (b *builder) add(step int, path string, t safetensors.Tensor, readers []string) {
	key := strings.Join(readers, "\x00")
	at, known := b.units[key]
	if !known {
		at = len(b.m.Units)
		b.units[key] = at
		b.m.Units = append(b.m.Units, planner.Unit{Path: path, Readers: readers})
	}
	u := &b.m.Units[at]
	if last := len(u.Uses) - 1; last < 0 || u.Uses[last].First != step {
		u.Uses = append(u.Uses, planner.Use{First: step, Last: step})
	}
	if b.laid[dataOf(t)] {
		return
	}
	b.laid[dataOf(t)] = true
	u.Bytes += planner.Bytes((t.Bytes() + alignment - 1) / alignment * alignment)
	u.Parameters += t.Elements
}

// step estimates a module's times: every weight is used for a multiplication and an addition each time, or read once. A
// product that is put into float64() is rounded before it is added, so that every processor finds the same.
func (g Guess) step(m module) planner.Step {
	if g.Reuse == 0 {
		return planner.Step{}
	}
	operations, bytes := map[string]float64{}, 0.0
	for _, t := range m.tensors {
		if m.isLookup() {
			bytes += float64(float64(t.Bytes()) * min(1, float64(g.Reuse)/float64(max(1, t.Shape[0]))))
			continue
		}
		operations[t.Type.Kind()] += float64(2 * float64(t.Elements) * float64(g.Reuse))
		bytes += float64(t.Bytes())
	}
	return planner.Step{
		Compute: planner.Nanoseconds(g.Card.Rates.Time(operations, bytes)), CPU: planner.Nanoseconds(g.Host.Rates.Time(operations, bytes)),
	}
}

func (g Guess) notes() []string {
	notes := []string{"nothing was run: the order of execution is supposed from the names of the weights, each module is read once"}
	if g.Reuse == 0 {
		return append(notes, "--reuse N lets times be estimated: how often a forward uses each weight, 1 in decoding, else the number of "+
			"tokens or positions")
	}
	return append(notes, fmt.Sprintf("times are estimates for a forward that uses each weight %s, on this card: %s; and on this CPU: %s",
		times(g.Reuse), g.Card.Name, g.Host.Name),
		"what a forward needs beside weights is not known, so nothing is reserved for it")
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
