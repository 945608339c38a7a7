package planner

import "fmt"

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
	needed   int           // copies that a step has waited for so far
	flights  []copying     // per copy, the latest
	released int           // copies whose bytes have been freed so far
	free     Nanoseconds   // when they came free
	dram     Nanoseconds   // the time that RAM needs for one lap
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

// newRun starts both engines at time 0.
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

// lap plays one forward.
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

// crossBack brings activations to the device before step s. They wait for the copies that run or have room.
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

// bring issues the next copy that step s needs, unless it has been issued.
func (r *run) bring(s, perLap int) error {
	if r.issued > r.needed {
		return nil
	}
	return r.issue(s, perLap)
}

// issue issues the next copy. It is an error where step s or a later step holds its bytes.
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

// release frees the bytes of the oldest copy that still holds its own.
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

// timeline sums up all laps, whose ends are given.
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
