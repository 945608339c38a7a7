package ipc

import (
	"fmt"
	"math"

	"github.com/optimem/optimem/planner"
)

// ToManifest turns a worker's messages into the planner's manifest. A figure that does not fit is an error that names the
// field.
func ToManifest(m Manifest, measured Measured) (planner.Manifest, error) {
	c := &converter{}
	out := planner.Manifest{Model: m.Model, Recorded: m.Recorded}
	out.Kept = c.size(m.KeptBytes, "kept_bytes")
	out.Steps = c.steps(m, measured)
	for i, u := range m.Units {
		out.Units = append(out.Units, c.unit(u, i))
	}
	c.hold(measured.Held, out.Units)
	return out, c.err
}

// ToOptions reads a wish.
func ToOptions(w Wish) (planner.Options, error) {
	share, err := planner.ParseShare(w.VRAM)
	if err != nil {
		return planner.Options{}, fmt.Errorf("vram: %w", err)
	}
	capacity, err := planner.ParseCapacity(w.MaxCapacity)
	if err != nil {
		return planner.Options{}, fmt.Errorf("max_capacity: %w", err)
	}
	c := &converter{}
	size := c.number(w.MaxLayerSize, "max_layer_size")
	return planner.Options{Mode: planner.Mode(w.Mode), VRAM: share, MaxLayerSize: size, MaxCapacity: capacity}, c.err
}

// FromPlan turns a plan into its message.
func FromPlan(p planner.Plan) Plan {
	out := Plan{
		Version:    uint64(p.Version),
		ArenaBytes: uint64(p.Arena), ResidentBytes: uint64(p.Resident), BudgetBytes: uint64(p.Budget), ReserveBytes: uint64(p.Reserve),
		PeriodNS: uint64(p.Period), BoundNS: uint64(p.Bound),
		Laps: uint64(max(1, p.Laps)), Eviction: unsigned(p.Eviction),
	}
	for _, page := range p.Pages {
		out.Pages = append(out.Pages, Page{Units: unsigned(page.Units), Bytes: uint64(page.Bytes), Placement: page.Placement.String()})
	}
	for _, c := range p.Copies {
		out.Copies = append(out.Copies, Copy{
			Page: uint64(c.Page), Offset: uint64(c.Offset), First: uint64(c.First), Last: uint64(c.Last), After: uint64(c.After),
		})
	}
	return out
}

func unsigned(numbers []int) []uint64 {
	out := make([]uint64, len(numbers))
	for i, n := range numbers {
		out[i] = uint64(n)
	}
	return out
}

// A converter keeps the first figure that does not fit.
type converter struct{ err error }

func (c *converter) steps(m Manifest, measured Measured) []planner.Step {
	if m.Steps > MaxValues {
		c.fail("steps", m.Steps)
		return nil
	}
	steps := make([]planner.Step, m.Steps)
	c.each(measured.StepComputeNS, steps, "step_compute_ns", func(s *planner.Step, n int64) { s.Compute = planner.Nanoseconds(n) })
	c.each(measured.StepCPUNS, steps, "step_cpu_ns", func(s *planner.Step, n int64) { s.CPU = planner.Nanoseconds(n) })
	c.each(measured.StepActivations, steps, "step_activations", func(s *planner.Step, n int64) { s.Activations = planner.Bytes(n) })
	c.each(measured.StepCrossings, steps, "step_crossings", func(s *planner.Step, n int64) { s.Crossing = planner.Bytes(n) })
	return steps
}

// each sets one figure of every step; the list has one entry per step or none.
func (c *converter) each(figures []uint64, steps []planner.Step, name string, set func(*planner.Step, int64)) {
	if len(figures) != 0 && len(figures) != len(steps) {
		c.keep(fmt.Errorf("%s has %d entries for %d steps", name, len(figures), len(steps)))
		return
	}
	for i, figure := range figures {
		set(&steps[i], c.number(figure, name))
	}
}

// hold marks the held units; the list names each once, in order.
func (c *converter) hold(held []uint64, units []planner.Unit) {
	for i, unit := range held {
		switch {
		case unit >= uint64(len(units)):
			c.keep(fmt.Errorf("held[%d] is %d, and there are %d units", i, unit, len(units)))
			return
		case i > 0 && unit <= held[i-1]:
			c.keep(fmt.Errorf("held[%d] is %d, behind %d: each unit is named once, in order", i, unit, held[i-1]))
			return
		}
		units[unit].Held = true
	}
}

func (c *converter) unit(u Unit, index int) planner.Unit {
	name := fmt.Sprintf("units[%d]", index)
	out := planner.Unit{
		Path: u.Path, Kind: u.Kind, Readers: u.Readers,
		Bytes:      c.size(u.Bytes, name+".bytes"),
		Parameters: c.number(u.Parameters, name+".parameters"),
	}
	for _, use := range u.Uses {
		out.Uses = append(out.Uses, planner.Use{First: c.index(use.First, name+".uses"), Last: c.index(use.Last, name+".uses")})
	}
	return out
}

func (c *converter) number(n uint64, name string) int64 {
	if n > math.MaxInt64 {
		c.fail(name, n)
		return 0
	}
	return int64(n)
}

func (c *converter) size(n uint64, name string) planner.Bytes {
	return planner.Bytes(c.number(n, name))
}

// index is a number that counts pages, units or steps.
func (c *converter) index(n uint64, name string) int {
	if n > math.MaxInt {
		c.fail(name, n)
		return 0
	}
	return int(n)
}

func (c *converter) fail(name string, n uint64) {
	c.keep(fmt.Errorf("%s is %d, which is out of range", name, n))
}

func (c *converter) keep(err error) { c.err = firstOf(c.err, err) }
