package planner

import "errors"

// mostPlayed bounds how many laps Evaluate plays until their times repeat.
const mostPlayed = 64

// A Timeline says when the engines of a plan do what, lap after lap, in ns from the start of the first lap. Its lists cover the
// last turn of the ring that was played, which is as many laps as the plan says: step s of lap i of the turn is entry
// i*steps + s.
type Timeline struct {
	Period    Nanoseconds // between the ends of two laps, back to back; the mean over a turn of the ring, rounded up
	First     Nanoseconds // end of the first lap, which starts with an empty arena and residents in place
	Begin     Nanoseconds // of this turn
	LapEnd    []Nanoseconds
	StepStart []Nanoseconds
	StepEnd   []Nanoseconds
	CopyStart []Nanoseconds
	CopyEnd   []Nanoseconds
	Stall     []Nanoseconds // per copy, how long computation or crossing activations waited for its end
	OnCPU     []bool        // per step of a lap, whether the CPU computes it; nil where the device computes all
	CrossEnd  []Nanoseconds // per step, when all activations have changed sides before it
	Crossing  []Nanoseconds // per step of a lap, how long activations take to change sides before it; nil where none do
	Back      Nanoseconds   // how long the result of a lap takes to change sides, until the end of the lap
}

// ErrDeadlock says that a copy waits for bytes that are freed only after the copy is needed.
var ErrDeadlock = errors.New("the ring deadlocks")

// Evaluate plays a plan on two engines, one for copies and one for computation. Each does one thing after the other:
//
//	copy end(k) = max(copy end(k-1), release of k - after(k) and of all before it) + latency + bytes/rate
//	step end(s) = max(step end(s-1) + crossing(s), copy end of every k with first(k) = s) + compute(s)
//	release(k)  = step end(last(k))
//
// Times of copies are rounded up to ns. Residents are there from the start. The CPU computes the steps at which uses of pages on
// the CPU begin, and the steps behind them at which no use begins. Activations cross where the side changes. A forward starts
// and ends on the device, or in RAM if its mode says so.
//
// Activations that cross to the device take the link in turn with copies. They wait for all copies that have room by then, and
// later copies wait for them.
//
// The plan keeps its promises for the manifest, as Plan.Check says. The error is ErrDeadlock where the ring deadlocks.
func Evaluate(m Manifest, p Plan, machine Machine) (Timeline, error) {
	r := newRun(m, p, machine)
	ends := make([]Nanoseconds, 0, mostPlayed)
	for len(ends) < mostPlayed && repeats(ends, p.Turn()) == 0 {
		for range p.Turn() {
			if err := r.lap(); err != nil {
				return Timeline{}, err
			}
			ends = append(ends, r.now)
		}
	}
	return r.timeline(ends), nil
}

// repeats is the number of laps, a multiple of turn, after which the times of laps have repeated twice. It is 0 where they have
// not.
func repeats(ends []Nanoseconds, turn int) int {
	for cycle := turn; 3*cycle < len(ends) && cycle <= 4*turn; cycle += turn {
		i := len(ends) - 1
		for i >= len(ends)-2*cycle && ends[i]-ends[i-1] == ends[i-cycle]-ends[i-cycle-1] {
			i--
		}
		if i < len(ends)-2*cycle {
			return cycle
		}
	}
	return 0
}
