package planner

import (
	"errors"
	"fmt"
)

// mostLaps bounds how long Evaluate waits for the period to repeat.
const mostLaps = 64

// A Timeline is what a plan's engines do, lap after lap. All times are from the start of the first lap.
type Timeline struct {
	Period    Nanoseconds // between the ends of two laps, back to back
	First     Nanoseconds // end of the first lap, which starts with an empty arena
	StepStart []Nanoseconds
	StepEnd   []Nanoseconds // of the last lap that was run
	CopyStart []Nanoseconds
	CopyEnd   []Nanoseconds
	Stall     []Nanoseconds // per copy, how long compute waited for it in that lap
	OnCPU     []bool        // per step, whether the CPU computes it; nil where the device computes all
	Crossing  []Nanoseconds // per step, how long activations take to change sides before it; nil where none do
}

// ErrDeadlock tells that a copy waits for bytes that are freed only after it is needed.
var ErrDeadlock = errors.New("the ring deadlocks")

// Evaluate runs a plan on two engines, one for copies and one for computation, each in order:
//
//	copy end(k) = max(copy end(k-1), release(k - after(k))) + latency + bytes/rate     rounded up to ns
//	step end(s) = max(step end(s-1), copy end of every k with first(k) = s) + compute(s)
//	release(k)  = step end(last(k))
//
// Residents are there from the start. In chunk mode there is one engine, and Evaluate adds up.
func Evaluate(m Manifest, p Plan, machine Machine) (Timeline, error) {
	if p.Mode == ModeChunk {
		period := chunkPeriod(m, p, machine)
		return Timeline{Period: period, First: period}, nil
	}
	r := newRun(m, p, machine)
	var ends []Nanoseconds
	for len(ends) < mostLaps {
		if err := r.lap(); err != nil {
			return Timeline{}, err
		}
		ends = append(ends, r.now)
		if steady(ends) {
			break
		}
	}
	return r.timeline(ends), nil
}

// steady tells whether the last three laps took the same time.
func steady(ends []Nanoseconds) bool {
	n := len(ends)
	return n >= 4 && ends[n-1]-ends[n-2] == ends[n-2]-ends[n-3] && ends[n-2]-ends[n-3] == ends[n-3]-ends[n-4]
}

// A run is the state of both engines.
type run struct {
	steps     []Step
	copies    []Copy
	transfer  []Nanoseconds // per copy
	now       Nanoseconds   // end of the step before
	copied    Nanoseconds   // end of the copy before
	laps      int
	stepStart []Nanoseconds
	stepEnd   [2][]Nanoseconds // of this lap and the one before
	copyStart []Nanoseconds
	copyEnd   []Nanoseconds
	stall     []Nanoseconds
}

func newRun(m Manifest, p Plan, machine Machine) *run {
	r := &run{
		steps: m.Steps, copies: p.Copies, transfer: make([]Nanoseconds, len(p.Copies)),
		stepStart: make([]Nanoseconds, len(m.Steps)),
		copyStart: make([]Nanoseconds, len(p.Copies)), copyEnd: make([]Nanoseconds, len(p.Copies)),
		stall: make([]Nanoseconds, len(p.Copies)),
	}
	for i := range r.stepEnd {
		r.stepEnd[i] = make([]Nanoseconds, len(m.Steps))
	}
	for k, c := range p.Copies {
		r.transfer[k] = machine.Link.Transfer(p.Pages[c.Page].Bytes)
	}
	return r
}

// lap runs one forward.
func (r *run) lap() error {
	this, k := r.stepEnd[r.laps%2], 0
	for s, step := range r.steps {
		for k < len(r.copies) && r.copies[k].First == s {
			if err := r.bring(k, s); err != nil {
				return err
			}
			r.stall[k] = max(0, r.copyEnd[k]-r.now)
			r.now = max(r.now, r.copyEnd[k])
			k++
		}
		r.stepStart[s] = r.now
		r.now += step.Compute
		this[s] = r.now
	}
	r.laps++
	return nil
}

// bring runs copy k, which step s needs.
func (r *run) bring(k, s int) error {
	free, err := r.released(k, s)
	if err != nil {
		return err
	}
	r.copyStart[k] = max(r.copied, free)
	r.copied = r.copyStart[k] + r.transfer[k]
	r.copyEnd[k] = r.copied
	return nil
}

// released is when the bytes of copy k come free.
func (r *run) released(k, s int) (Nanoseconds, error) {
	blocker := k - r.copies[k].After
	if blocker >= 0 {
		if last := r.copies[blocker].Last; last >= s {
			return 0, fmt.Errorf("%w: copy %d for step %d needs bytes that copy %d holds through step %d", ErrDeadlock, k, s, blocker, last)
		}
		return r.stepEnd[r.laps%2][r.copies[blocker].Last], nil
	}
	if r.laps == 0 {
		return 0, nil
	}
	return r.stepEnd[(r.laps+1)%2][r.copies[blocker+len(r.copies)].Last], nil
}

// timeline sums up: the period is the last lap's where it repeats, else the mean over the later half.
func (r *run) timeline(ends []Nanoseconds) Timeline {
	half, last := len(ends)/2, len(ends)-1
	period := ends[last] - ends[last-1]
	if !steady(ends) {
		period = (ends[last] - ends[half]) / Nanoseconds(last-half)
	}
	return Timeline{
		Period: period, First: ends[0], StepStart: r.stepStart, StepEnd: r.stepEnd[(r.laps+1)%2],
		CopyStart: r.copyStart, CopyEnd: r.copyEnd, Stall: r.stall,
	}
}
