package contract

import (
	"cmp"
	"slices"

	"github.com/optimem/optimem/internal/strict"
	"github.com/optimem/optimem/planner"
)

// A part is one of the times of a forward, and the field that gives it. It is a float, whose sums are exact up to 2^53 ns and
// cannot overflow.
type part struct {
	field, what string
	ns          float64
}

// checkTimes wants a forward within the limits of the planner even if nothing overlaps and every use needs a copy.
func (r Request) checkTimes(m Machine) error {
	parts := append(r.traffic(m), part{"compute_ns", "the computation on the device and on the CPU", r.computation()})
	var sum float64
	for _, p := range parts {
		sum += p.ns
	}
	if sum <= largest {
		return nil
	}
	most := slices.MaxFunc(parts, func(a, b part) int { return cmp.Compare(a.ns, b.ns) })
	return strict.Fault(most.field, "a forward that waits for everything takes more than 2^50 ns (13 days), most of them for %s: is it in the right unit?", most.what)
}

func (r Request) computation() (ns float64) {
	for _, s := range r.Manifest.Steps {
		ns += float64(s.Compute) + float64(s.CPU)
	}
	return ns
}

// traffic are the times of copies, crossings and reads of RAM.
func (r Request) traffic(m Machine) []part {
	latency, rate := r.linkFields()
	bare, cross, crossRate := planner.Link{Rate: m.Link.Rate}, m.Link, rate
	if m.Host.CrossRate > 0 {
		cross.Rate, crossRate = m.Host.CrossRate, "machine.host.cross_bytes_per_second"
	}
	if m.Crossing.Rate > 0 {
		cross, crossRate = m.Crossing, "machine.crossing.bytes_per_second"
	}
	parts := []part{
		{latency, "the latency of copies", 0}, {rate, "copies", 0}, {crossRate, "activations that cross", 0},
		{"machine.host.bytes_per_second", "reading RAM", 0},
	}
	for _, u := range r.Manifest.Units {
		uses := float64(len(u.Uses))
		parts[0].ns += uses * float64(m.Link.Latency)
		parts[1].ns += uses * float64(bare.Transfer(u.Bytes))
		if m.Host.Rate > 0 {
			parts[3].ns += uses * float64(planner.Link{Rate: m.Host.Rate}.Transfer(u.Bytes))
		}
	}
	for _, s := range r.Manifest.Steps {
		parts[2].ns += float64(cross.Transfer(s.Crossing))
	}
	return parts
}

// linkFields are the fields that give the latency and the rate of the link.
func (r Request) linkFields() (latency, rate string) {
	if r.Options.Link.Rate > 0 {
		return "options.link", "options.link"
	}
	return "machine.link.latency_ns", "machine.link.bytes_per_second"
}

// checkFigures wants a plan whose figures ReadAnswer accepts. On an absurd machine copies of whole pages can take longer than
// those of their units.
func (a Answer) checkFigures() error {
	p := a.plan
	times := []planner.Nanoseconds{p.Period, p.First, p.Bound}
	for _, point := range a.Curve {
		times = append(times, point.Period, point.Bound)
	}
	if slices.Max(times) > largest {
		return strict.Fault("machine.link", "a forward takes more than 2^50 ns (13 days): is the rate in bytes per second?")
	}
	return nil
}
