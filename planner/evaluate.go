package planner

import (
	"errors"
	"fmt"
)

// mostPlayed bounds how long Evaluate waits for the period to repeat.
const mostPlayed = 64

// A Timeline is what a plan's engines do, lap after lap. All times are from the start of the first lap. Its lists cover the
// last turn of the ring that was run, which is as many laps as the plan says: step s of its lap i is entry i*steps + s.
type Timeline struct {
	Period    Nanoseconds // between the ends of two laps, back to back; the mean over a turn of the ring, rounded up
	First     Nanoseconds // end of the first lap, which starts with an empty arena and residents in place
	Begin     Nanoseconds // of the turn
	LapEnd    []Nanoseconds
	StepStart []Nanoseconds
	StepEnd   []Nanoseconds
	CopyStart []Nanoseconds
	CopyEnd   []Nanoseconds
	Stall     []Nanoseconds // per copy, how long compute, or activations that change sides, waited for its end
	OnCPU     []bool        // per step of a lap, whether the CPU computes it; nil where the device computes all
	CrossEnd  []Nanoseconds // per step, when all activations that change sides before it have
	Crossing  []Nanoseconds // per step of a lap, how long activations take to change sides before it; nil where none do
	Back      Nanoseconds   // how long the result of a lap takes to change sides, until the end of the lap
}

// ErrDeadlock tells that a copy waits for bytes that are freed only after it is needed.
var ErrDeadlock = errors.New("the ring deadlocks")

// Evaluate runs a plan on two engines, one for copies and one for computation, each in order:
//
//	copy end(k) = max(copy end(k-1), release of k - after(k) and of all before it) + latency + bytes/rate
//	step end(s) = max(step end(s-1) + crossing(s), copy end of every k with first(k) = s) + compute(s)
//	release(k)  = step end(last(k))
//
// Activations that cross to the device take the link in turn: they wait for all copies that have room by then, and later ones
// for them.
//
// Times of copies are rounded up to ns. Residents are there from the start. Steps that begin to read a page of the CPU, and
// those behind them that begin to read nothing, take their time on the CPU, and activations cross where the side changes. A
// forward starts and ends on the device, in the mode chunk in RAM.
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

// repeats is the number of laps, a multiple of turn, after which their times have repeated twice, or 0.
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

// A run is the state of both engines.
type run struct {
	steps    []Step
	copies   []Copy
	turn     int
	side     side
	transfer []Nanoseconds // per copy
	lapsDone int
	now      Nanoseconds   // end of the step before
	copied   Nanoseconds   // end of the copy before
	issued   int           // copies so far
	needed   int           // of those, copies that a step has waited for
	flights  []copying     // per copy, the latest
	released int           // copies whose bytes were taken so far
	free     Nanoseconds   // when they came free
	dram     Nanoseconds   // that RAM needs for one lap
	out      Timeline      // of this turn
	before   []Nanoseconds // ends of the steps of the lap before
	fills    []filling     // copies of residents that are still to come, in order
}

// A copying is when a copy runs, and how long computation has waited for it.
type copying struct{ start, end, stall Nanoseconds }

// A filling is a copy of residents for their first use, at a step.
type filling struct {
	step     int
	transfer Nanoseconds
}

func newRun(m Manifest, p Plan, machine Machine) *run {
	r := &run{steps: m.Steps, copies: p.Copies, turn: p.Turn(), side: sideOf(m, p, machine), transfer: make([]Nanoseconds, len(p.Copies))}
	for k, c := range p.Copies {
		r.transfer[k] = machine.Link.Transfer(p.Pages[c.Page].Bytes)
	}
	r.flights = make([]copying, len(p.Copies))
	r.dram = hostTime(m, p, machine)
	copies, steps := len(p.Copies), r.turn*len(m.Steps)
	r.out = Timeline{
		LapEnd:    make([]Nanoseconds, r.turn),
		StepStart: make([]Nanoseconds, steps), StepEnd: make([]Nanoseconds, steps), CrossEnd: make([]Nanoseconds, steps),
		CopyStart: make([]Nanoseconds, copies), CopyEnd: make([]Nanoseconds, copies), Stall: make([]Nanoseconds, copies),
	}
	r.before = make([]Nanoseconds, len(m.Steps))
	return r
}

// lap runs one forward.
func (r *run) lap() error {
	n := len(r.steps)
	base := r.lapsDone % r.turn * n
	if base == 0 {
		r.out.Begin = r.now
	}
	copy(r.before, r.out.StepEnd[(base+(r.turn-1)*n)%max(1, r.turn*n):])
	perLap := len(r.copies) / r.turn
	end := (r.lapsDone + 1) * perLap
	for s, step := range r.steps {
		if crossing := r.side.cross(s); r.side.onCPU == nil || r.side.onCPU[s] {
			r.now += crossing
		} else {
			r.crossBack(s, perLap, crossing)
		}
		r.out.CrossEnd[base+s] = r.now
		for len(r.fills) > 0 && r.fills[0].step == s {
			r.copied += r.fills[0].transfer
			r.now = max(r.now, r.copied)
			r.fills = r.fills[1:]
		}
		for r.needed < end && r.copies[r.needed%len(r.copies)].First == s {
			if err := r.bring(s, perLap); err != nil {
				return err
			}
			r.need()
		}
		r.out.StepStart[base+s] = r.now
		r.now += r.side.time(s, step)
		r.out.StepEnd[base+s] = r.now
	}
	r.crossBack(n, perLap, r.side.back)
	r.out.LapEnd[r.lapsDone%r.turn] = r.now
	r.lapsDone++
	return nil
}

// crossBack brings activations to the device before step s, behind the copies that are under way or could be.
func (r *run) crossBack(s, perLap int, crossing Nanoseconds) {
	if crossing == 0 || len(r.copies) == 0 || len(r.fills) > 0 {
		r.now += crossing
		return
	}
	for r.issued-r.needed < len(r.copies) && r.issue(s, perLap) == nil {
	}
	if r.copied > r.now {
		r.flights[(r.issued-1)%len(r.copies)].stall += r.copied - r.now
	}
	r.now = max(r.now, r.copied) + crossing
	r.copied = r.now
}

// bring runs the next copy that a step needs, at step s, unless it has run already.
func (r *run) bring(s, perLap int) error {
	if r.issued > r.needed {
		return nil
	}
	return r.issue(s, perLap)
}

// issue runs the next copy. It is an error where step s or a later one holds its bytes.
func (r *run) issue(s, perLap int) error {
	k := r.issued % len(r.copies)
	for blocker := r.issued - r.copies[k].After; r.released <= blocker; r.released++ {
		if err := r.release(s, perLap); err != nil {
			return err
		}
	}
	start := max(r.copied, r.free)
	r.copied = start + r.transfer[k]
	r.flights[k] = copying{start: start, end: r.copied}
	r.issued++
	return nil
}

// need lets a step wait for the next copy, which has been issued.
func (r *run) need() {
	k := r.needed % len(r.copies)
	c := r.flights[k]
	r.out.CopyStart[k], r.out.CopyEnd[k], r.out.Stall[k] = c.start, c.end, c.stall+max(0, c.end-r.now)
	r.now = max(r.now, c.end)
	r.needed++
}

// release takes the bytes of the oldest copy that still has its own.
func (r *run) release(s, perLap int) error {
	last := r.copies[r.released%len(r.copies)].Last
	if r.released/perLap < r.lapsDone {
		r.free = max(r.free, r.before[last])
		return nil
	}
	if last >= s || r.released >= r.needed {
		return fmt.Errorf("%w: copy %d for step %d needs bytes that copy %d holds through step %d",
			ErrDeadlock, r.issued%len(r.copies), s, r.released%len(r.copies), last)
	}
	r.free = max(r.free, r.out.StepEnd[r.lapsDone%r.turn*len(r.steps)+last])
	return nil
}

// timeline sums up.
func (r *run) timeline(ends []Nanoseconds) Timeline {
	last := len(ends) - 1
	laps := repeats(ends, r.turn)
	if laps == 0 {
		laps = max(1, len(ends)/2/r.turn) * r.turn
	}
	start := Nanoseconds(0)
	if laps <= last {
		start = ends[last-laps]
	}
	period := (ends[last] - start + Nanoseconds(laps) - 1) / Nanoseconds(laps)
	r.out.Period, r.out.First = max(period, r.dram), ends[0]
	r.out.OnCPU, r.out.Crossing, r.out.Back = r.side.onCPU, r.side.crossing, r.side.back
	return r.out
}
