package planner

import "fmt"

// chainOf is a recorded model of units used once each, one step apart, in list order.
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

var pcie = Machine{Link: Link{10_000, 12_000_000_000}}
