package search

import (
	"fmt"

	"github.com/optimem/optimem/planner"
)

// chainOf is a recorded model of units used once each, one step apart, in list order.
func chainOf(bytes []planner.Bytes, compute []planner.Nanoseconds) planner.Manifest {
	m := planner.Manifest{Model: "chain", Recorded: true}
	for i := range bytes {
		m.Steps = append(m.Steps, planner.Step{Compute: compute[i], CPU: 3 * compute[i]})
		path := fmt.Sprintf("layers.%d", i)
		m.Units = append(m.Units, planner.Unit{Path: path, Bytes: bytes[i], Parameters: int64(bytes[i] / 4), Readers: []string{path}, Uses: []planner.Use{{First: i, Last: i}}})
	}
	return m
}

// uniform is a chain of n equal units.
func uniform(n int, bytes planner.Bytes, compute planner.Nanoseconds) planner.Manifest {
	sizes, times := make([]planner.Bytes, n), make([]planner.Nanoseconds, n)
	for i := range n {
		sizes[i], times[i] = bytes, compute
	}
	return chainOf(sizes, times)
}

var pcie = planner.Machine{Link: planner.Link{Latency: 10_000, Rate: 12_000_000_000}}
