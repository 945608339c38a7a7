// Package laps tells what a plan's engines do over two laps, one after the other: what the report draws and what a trace
// lists.
package laps

import (
	"slices"

	"github.com/optimem/optimem/planner"
)

// shown is how many laps are told of.
const shown = 2

// Laps are the engines of a plan over two laps. All times are from the start of the first of them.
type Laps struct {
	Timeline planner.Timeline
	Second   planner.Nanoseconds // where the second lap starts
	Window   planner.Nanoseconds // where it ends
	Repeats  bool                // laps take the period on average; false where none two took the same time and longer ones are told of
	Memory   []Level             // in order of time, the first at 0
	Resident planner.Bytes       // the part of Memory that is always there
	plan     planner.Plan
	turn     planner.Nanoseconds // from the start of one turn of the ring to the start of the next
}

// An Engine does one thing after the other.
type Engine string

// The engines.
const (
	Copy     Engine = "copy"
	Device   Engine = "device"
	CPU      Engine = "cpu"
	Crossing Engine = "crossing" // activations on their way between RAM and the device
)

// Engines are all of them, in the order in which people are shown them.
var Engines = []Engine{Copy, Device, CPU, Crossing}

// A Slice is what an engine does at a stretch.
type Slice struct {
	Engine     Engine
	Stall      bool // the device waits for a copy
	Copy       int  // the copy that runs or is waited for, -1 where there is none
	Step       int  // the step that runs, or that begins after the copy or the crossing; -1 where the lap ends after it
	Lap        int
	Start, End planner.Nanoseconds
}

// A Level is how much of the device weights take from a time on.
type Level struct {
	At    planner.Nanoseconds
	Bytes planner.Bytes
}

// Of evaluates a plan.
func Of(m planner.Manifest, p planner.Plan, machine planner.Machine) (Laps, error) {
	timeline, err := planner.Evaluate(m, p, machine)
	if err != nil {
		return Laps{}, err
	}
	return From(timeline, p), nil
}

// From makes laps of a plan's timeline.
func From(timeline planner.Timeline, p planner.Plan) Laps {
	l := Laps{Timeline: timeline, Resident: p.Resident, plan: p}
	l.turn = l.apart()
	l.Second, l.Window = l.start(1), l.start(shown)
	l.Repeats = l.turn <= planner.Nanoseconds(l.inTurn())*timeline.Period
	l.Memory = l.levels()
	return l
}

// inTurn is how many laps one turn of the ring takes.
func (l Laps) inTurn() int { return max(1, l.plan.Laps) }

// perLap is how many of a turn's steps or copies are those of one lap.
func (l Laps) perLap(inTurn int) int { return max(1, inTurn/l.inTurn()) }

// start is when a lap starts.
func (l Laps) start(lap int) planner.Nanoseconds {
	start := planner.Nanoseconds(lap/l.inTurn()) * l.turn
	if of := lap % l.inTurn(); of > 0 {
		start += l.Timeline.LapEnd[of-1] - l.Timeline.Begin
	}
	return start
}

// Known tells whether there are steps to tell of: a plan made before the recorded forward has none.
func (l Laps) Known() bool { return len(l.Timeline.StepStart) > 0 && l.Window > 0 }

// Stalls counts the stalls of both laps.
func (l Laps) Stalls() (count int) {
	for _, s := range l.some(shown) {
		if s.Stall {
			count++
		}
	}
	return count
}

// Slices are those of both laps in order of their starts, whole, also where a copy of the first lap starts before 0.
func (l Laps) Slices() []Slice { return sorted(l.some(shown)) }

// Within are the slices between 0 and Window, cut there, of all laps that reach into it: a copy starts one lap early at
// most, for it takes the place of the copy of the same page in the lap before.
func (l Laps) Within() []Slice {
	var out []Slice
	for _, s := range l.some(shown + 1) {
		s.Start, s.End = max(0, s.Start), min(l.Window, s.End)
		if s.Start < s.End {
			out = append(out, s)
		}
	}
	return sorted(out)
}

func sorted(all []Slice) []Slice {
	slices.SortStableFunc(all, func(a, b Slice) int {
		if a.Start != b.Start {
			return int(a.Start - b.Start)
		}
		return int(b.End - a.End)
	})
	return all
}

// some are the slices of the first laps.
func (l Laps) some(laps int) (out []Slice) {
	of := append(l.copies(), l.steps()...)
	for turn := range (laps + l.inTurn() - 1) / l.inTurn() {
		shift := planner.Nanoseconds(turn)*l.turn - l.Timeline.Begin
		for _, s := range of {
			s.Lap, s.Start, s.End = s.Lap+turn*l.inTurn(), s.Start+shift, s.End+shift
			if s.Lap < laps && s.Start < s.End {
				out = append(out, s)
			}
		}
	}
	return out
}

// copies are the copies and the stalls of the timeline.
func (l Laps) copies() (out []Slice) {
	t := l.Timeline
	for k, end := range t.CopyEnd {
		copied := Slice{Engine: Copy, Copy: k, Step: l.plan.Copies[k].First, Lap: k / l.perLap(len(t.CopyEnd)), Start: t.CopyStart[k], End: end}
		stall := copied
		stall.Engine, stall.Stall, stall.Start = Device, true, end-t.Stall[k]
		out = append(out, copied, stall)
	}
	return out
}

// steps are the steps of the timeline, and the crossings: one before a step that changes sides, one at the end of a lap.
func (l Laps) steps() (out []Slice) {
	t := l.Timeline
	perLap := l.perLap(len(t.StepStart))
	for i, start := range t.StepStart {
		s := Slice{Engine: Device, Copy: -1, Step: i % perLap, Lap: i / perLap, Start: start, End: t.StepEnd[i]}
		if t.OnCPU != nil && t.OnCPU[s.Step] {
			s.Engine = CPU
		}
		if t.Crossing != nil {
			out = append(out, s.crossing(s.Step, t.CrossEnd[i], t.Crossing[s.Step]))
		}
		out = append(out, s)
	}
	for lap, end := range t.LapEnd {
		out = append(out, Slice{Copy: -1, Lap: lap}.crossing(-1, end, t.Back))
	}
	return out
}

// crossing is one that ends before a step, in the same lap.
func (s Slice) crossing(step int, end, takes planner.Nanoseconds) Slice {
	s.Engine, s.Step, s.Start, s.End = Crossing, step, end-takes, end
	return s
}

// apart is the shortest time, a period for each lap at least, by which a turn can follow the last one that was run with every
// engine in order and no byte of the arena taken twice. It is what turns take wherever they repeat.
func (l Laps) apart() planner.Nanoseconds {
	t, laps := l.Timeline, planner.Nanoseconds(l.inTurn())
	apart := laps*(t.Period-1) + 1 // the period is rounded up
	if n := len(t.LapEnd); n > 0 {
		apart = max(apart, t.LapEnd[n-1]-t.Begin)
	}
	n := len(t.CopyStart)
	if n > 0 {
		apart = max(apart, t.CopyEnd[n-1]-t.CopyStart[0])
	}
	for k := range n {
		if blocker := k - l.plan.Copies[k].After; blocker < 0 {
			apart = max(apart, l.released(blocker+n)-t.CopyStart[k])
		}
	}
	return apart
}

// released is when a copy gives its bytes back.
func (l Laps) released(k int) planner.Nanoseconds {
	lap := k / l.perLap(len(l.plan.Copies))
	return l.Timeline.StepEnd[lap*l.perLap(len(l.Timeline.StepEnd))+l.plan.Copies[k].Last]
}

// levels follows the arena's bytes: a copy holds its own from its start to the end of the last step that reads them.
func (l Laps) levels() []Level {
	changes := l.changes()
	slices.SortStableFunc(changes, func(a, b Level) int {
		if a.At != b.At {
			return int(a.At - b.At)
		}
		return int(a.Bytes - b.Bytes) // what comes free at a time is free for what is taken then
	})
	out := []Level{{0, l.Resident}}
	now := l.Resident
	for _, c := range changes {
		if now += c.Bytes; c.At >= l.Window {
			break
		}
		if last := len(out) - 1; out[last].At == max(0, c.At) {
			out[last].Bytes = now
			continue
		}
		out = append(out, Level{c.At, now})
	}
	return out
}

// changes are what is taken and given back by the turns that reach into the window.
func (l Laps) changes() (out []Level) {
	for turn := range shown + 1 {
		shift := planner.Nanoseconds(turn)*l.turn - l.Timeline.Begin
		for k, start := range l.Timeline.CopyStart {
			size := l.plan.Pages[l.plan.Copies[k].Page].Bytes
			out = append(out, Level{start + shift, size}, Level{l.released(k) + shift, -size})
		}
	}
	return out
}

// Peak is the most that weights take.
func (l Laps) Peak() planner.Bytes {
	var peak planner.Bytes
	for _, level := range l.Memory {
		peak = max(peak, level.Bytes)
	}
	return peak
}
