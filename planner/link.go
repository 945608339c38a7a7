package planner

import "math/bits"

// A Link is the way from RAM to the device. A copy of n bytes takes Latency + n/Rate.
type Link struct {
	Latency Nanoseconds
	Rate    Bytes // bytes per second; 0 where not known
}

// What a link is taken for where it was not measured: PCIe 3 x16 with pinned memory.
const (
	usualLatency Nanoseconds = 10_000
	usualRate    Bytes       = 12_000_000_000
)

// OrUsual is the link itself where its rate is known, else PCIe 3 x16 with pinned memory.
func (l Link) OrUsual() Link {
	if l.Rate <= 0 {
		return Link{usualLatency, usualRate}
	}
	return l
}

// Transfer is the time that a copy of size bytes takes: latency + size/rate, rounded up to whole ns, at most Largest.
func (l Link) Transfer(size Bytes) Nanoseconds {
	l = l.OrUsual()
	whole, rest := size/l.Rate, size%l.Rate
	if whole > Largest/1_000_000_000 {
		return Largest
	}
	high, low := bits.Mul64(uint64(rest), 1_000_000_000) // floats lose a nanosecond above some 9 MB
	fraction, remainder := bits.Div64(high, low, uint64(l.Rate))
	if remainder > 0 {
		fraction++
	}
	return min(Largest, l.Latency+Nanoseconds(whole)*1_000_000_000+Nanoseconds(fraction))
}
