package planner

import (
	"fmt"
	"strconv"
)

// Bytes is a size. It is signed, so that a difference cannot wrap.
type Bytes int64

// Largest is the largest size that the planner takes, 1 PiB, and the longest time, some 13 days in ns. Sums and laps within it
// cannot overflow.
const Largest = 1 << 50

var binaryUnits = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}

// String prints 1.5 GiB.
func (b Bytes) String() string {
	value, unit := float64(b), 0
	for (value >= 1024 || value <= -1024) && unit < len(binaryUnits)-1 {
		value /= 1024
		unit++
	}
	if unit == 0 {
		return strconv.FormatInt(int64(b), 10) + " B"
	}
	return fmt.Sprintf("%.1f %s", value, binaryUnits[unit])
}

// Nanoseconds is a time.
type Nanoseconds int64

// String prints 12.4 ms.
func (n Nanoseconds) String() string {
	switch value := float64(n); {
	case n < 1_000:
		return strconv.FormatInt(int64(n), 10) + " ns"
	case n < 1_000_000:
		return fmt.Sprintf("%.1f us", value/1e3)
	case n < 1_000_000_000:
		return fmt.Sprintf("%.1f ms", value/1e6)
	default:
		return fmt.Sprintf("%.2f s", value/1e9)
	}
}
