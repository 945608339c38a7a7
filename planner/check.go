package planner

import (
	"errors"
	"fmt"
)

// ErrInvalid says that a manifest, a machine or a plan contradicts itself.
var ErrInvalid = errors.New("invalid")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// Check says what is wrong with a manifest, with a machine, or with both together: sums of times that could overflow. Its errors
// are ErrInvalid.
func Check(m Manifest, machine Machine) error {
	if err := m.Check(); err != nil {
		return err
	}
	if err := machine.check(); err != nil {
		return err
	}
	return machine.checkTraffic(m)
}

// Check says what is wrong with a manifest: figures that are negative or whose sum exceeds Largest, uses that are out of range
// or out of order, units without a path. Its errors are ErrInvalid.
func (m Manifest) Check() error {
	var time, size total
	for i, s := range m.Steps {
		if !time.add(int64(s.Compute)) || !time.add(int64(s.CPU)) {
			return invalid("steps[%d]: a time of %d ns on the device and %d ns on the CPU is out of range", i, int64(s.Compute), int64(s.CPU))
		}
		if s.Activations < 0 || s.Activations > Largest || s.Crossing < 0 || s.Crossing > Largest {
			return invalid("steps[%d]: %d bytes of activations or %d at its border are out of range", i, int64(s.Activations), int64(s.Crossing))
		}
	}
	if len(m.Units) == 0 {
		return invalid("units: there are none, so there is nothing to page")
	}
	for i, u := range m.Units {
		if u.Path == "" {
			return invalid("units[%d]: the path is empty", i)
		}
		if !size.add(int64(u.Bytes)) || u.Parameters < 0 || u.Parameters > Largest {
			return invalid("units[%d] (%s): %d bytes and %d parameters are out of range", i, u.Path, int64(u.Bytes), u.Parameters)
		}
		if err := m.checkUses(i); err != nil {
			return err
		}
	}
	return nil
}

// checkUses wants the uses of unit i in order and within the steps, and none before the recording.
func (m Manifest) checkUses(i int) error {
	u := m.Units[i]
	if !m.Recorded && len(u.Uses) > 0 {
		return invalid("units[%d] (%s): it has uses before the recording", i, u.Path)
	}
	before := -1
	for j, use := range u.Uses {
		if use.First <= before || use.Last < use.First || use.Last >= len(m.Steps) {
			return invalid("units[%d] (%s): uses[%d] is %d to %d, after %d, of %d steps", i, u.Path, j, use.First, use.Last, before, len(m.Steps))
		}
		before = use.Last
	}
	return nil
}

// A total adds figures that must not be negative. Their sum must not exceed Largest.
type total int64

// add returns false, and adds nothing, where the figure or the sum is out of range.
func (s *total) add(n int64) bool {
	if n < 0 || n > Largest || int64(*s) > Largest-n {
		return false
	}
	*s += total(n)
	return true
}

// check wants figures that are not negative, and neither sizes nor times above Largest.
func (machine Machine) check() error {
	if machine.Free < 0 || machine.Free > Largest || machine.Link.Latency < 0 || machine.Link.Latency > Largest || machine.Link.Rate < 0 ||
		machine.Host.Rate < 0 || machine.Host.CrossRate < 0 ||
		machine.Crossing.Latency < 0 || machine.Crossing.Latency > Largest || machine.Crossing.Rate < 0 {
		return invalid("machine: %d free bytes, a latency of %d ns, a rate of %d bytes/s, a host of %d and %d bytes/s, or crossings with %d ns and %d bytes/s are out of range",
			int64(machine.Free), int64(machine.Link.Latency), int64(machine.Link.Rate), int64(machine.Host.Rate), int64(machine.Host.CrossRate),
			int64(machine.Crossing.Latency), int64(machine.Crossing.Rate))
	}
	return nil
}

// checkTraffic wants the times of all copies and crossings of a lap to stay below Largest in sum.
func (machine Machine) checkTraffic(m Manifest) error {
	var time, size total
	for i, u := range m.Units {
		transfer := machine.Link.Transfer(u.Bytes)
		for range u.Uses {
			if transfer >= Largest || !time.add(int64(transfer)) || !size.add(int64(u.Bytes)) {
				return invalid("units[%d] (%s): %v in each of %d uses at %d bytes/s take longer than 13 days: is the rate in bytes per second?",
					i, u.Path, u.Bytes, len(u.Uses), int64(machine.Link.OrUsual().Rate))
			}
		}
	}
	for i, step := range m.Steps {
		if !time.add(int64(machine.CrossingTime(step.Crossing))) {
			return invalid("steps[%d]: %v of activations take longer than 13 days to cross", i, step.Crossing)
		}
	}
	return nil
}
