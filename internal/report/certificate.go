package report

import (
	"fmt"
	"math"

	"github.com/optimem/optimem/planner"
)

// A Certificate says how fast a model is beside the fastest that any schedule could be.
type Certificate struct {
	Period    planner.Nanoseconds
	Measured  bool // Period was measured, not predicted
	Simulated bool
	Estimated bool                // the times that Period was predicted from are estimates
	Bound     planner.Nanoseconds // 0 where it is not known
	Compute   planner.Nanoseconds // of all steps on the device; 0 where it is not known
	Budget    planner.Bytes
	Mode      planner.Mode
}

// Gap is how far the period lies above the bound, as a share of the bound.
func (c Certificate) Gap() float64 {
	if c.Bound <= 0 {
		return 0
	}
	return float64(c.Period-c.Bound) / float64(c.Bound)
}

// String says "12.4 ms per forward, 2.1 % above what this link and 2.0 GiB allow". A period below the bound is said as
// plainly: one of the two is wrong then.
func (c Certificate) String() string {
	switch {
	case c.Period <= 0:
		return "the time per forward is not known"
	case c.Bound <= 0:
		return fmt.Sprintf("%s; what could be reached is not known", c.forward())
	case c.Period < c.Bound:
		return fmt.Sprintf("%s, %s below what %s were found to allow: the bound or the time is wrong, please report it",
			c.forward(), Percent(-c.Gap()), c.limits())
	}
	return fmt.Sprintf("%s, %s above what %s allow", c.forward(), Percent(c.Gap()), c.limits())
}

// forward is the time, and where it is from.
func (c Certificate) forward() string {
	text := Duration(c.Period) + " per forward"
	switch {
	case c.Simulated && c.Measured:
		return text + " (simulated)"
	case c.Simulated:
		return text + " (predicted for a simulated card, nothing measured)"
	case c.Estimated && !c.Measured:
		return text + " (estimated, nothing measured)"
	case !c.Measured:
		return text + " (predicted, nothing measured)"
	}
	return text
}

// limits names what the bound is made of.
func (c Certificate) limits() string {
	switch {
	case !c.Mode.Streams():
		return "this CPU, this card and the chunk's capacity"
	case c.Mode.UsesCPU():
		return fmt.Sprintf("this link, this CPU and %v", c.Budget)
	case c.Compute > 0 && c.Bound <= c.Compute:
		return fmt.Sprintf("this card's own speed and %v", c.Budget)
	}
	return fmt.Sprintf("this link and %v", c.Budget)
}

// Duration prints a time with three digits in the unit that fits: 950 ns, 12.4 ms, 1.52 s.
func Duration(ns planner.Nanoseconds) string {
	value, unit := float64(ns), "ns"
	for _, next := range []string{"us", "ms", "s"} {
		if math.Abs(value) < 999.5 {
			break
		}
		value, unit = value/1000, next
	}
	if unit == "ns" {
		return fmt.Sprintf("%d ns", ns)
	}
	return digits(value) + " " + unit
}

// digits prints three digits, all of them where there are more before the point.
func digits(value float64) string {
	switch size := math.Abs(value); {
	case size >= 99.95:
		return fmt.Sprintf("%.0f", value)
	case size >= 9.995:
		return fmt.Sprintf("%.1f", value)
	}
	return fmt.Sprintf("%.2f", value)
}

// Percent prints a share with one digit behind the point, and with as many as it takes to tell it from none.
func Percent(share float64) string {
	percent := 100 * share
	if size := math.Abs(percent); size > 0 && size < 0.05 {
		return fmt.Sprintf("%.1g %%", percent)
	}
	return fmt.Sprintf("%.1f %%", percent)
}
