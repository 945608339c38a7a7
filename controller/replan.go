package controller

import (
	"reflect"
	"slices"
	"strconv"

	"github.com/optimem/optimem/planner"
)

// A standing says how the plan in force stands: on a prediction alone, or on what was seen of it and of others.
type standing int

// The standings. Every course begins in fresh.
const (
	fresh      standing = iota // there is no plan yet from this recording within this budget
	predicted                  // the plan with the best prediction is in force, and on trial
	compared                   // its trial is over
	settled                    // the fastest plan that was seen is in force again, and on trial; predictions lead nowhere
	proven                     // that trial is over too
	withoutCPU                 // the device computes alone, and that plan is on trial
)

var standingNames = [...]string{"fresh", "predicted", "compared", "settled", "proven", "without the CPU"}

func (s standing) String() string {
	if s < 0 || int(s) >= len(standingNames) {
		return "standing " + strconv.Itoa(int(s))
	}
	return standingNames[s]
}

// A finding is what times and reports show of the plan in force.
type finding int

// The findings. A finding that leads to another plan counts once that plan is made: it is what the worker follows next.
const (
	foundTimes     finding = iota // there are times of the recording, and a plan from them
	foundMistaken                 // the prediction is off by more than a tenth, and newer times give another plan
	foundTried                    // enough forwards have run under the plan to compare it with others
	foundSlower                   // an earlier plan was faster, still fits, and is faster by the newest times too
	foundCPUSlower                // the CPU takes part; the device alone would be faster, and has not been tried yet
	foundChange                   // the budget is another one
)

var findingNames = [...]string{"times came", "mistaken", "tried out", "slower", "slower with the CPU", "changed"}

func (f finding) String() string {
	if f < 0 || int(f) >= len(findingNames) {
		return "finding " + strconv.Itoa(int(f))
	}
	return findingNames[f]
}

// turns is the whole policy. Findings that are not listed change nothing, and are not looked for.
var turns = map[standing]map[finding]standing{
	fresh:      {foundTimes: predicted, foundChange: fresh},
	predicted:  {foundMistaken: predicted, foundTried: compared, foundChange: fresh},
	compared:   {foundMistaken: predicted, foundSlower: settled, foundCPUSlower: withoutCPU, foundChange: fresh},
	settled:    {foundTried: proven, foundChange: fresh},
	proven:     {foundCPUSlower: withoutCPU, foundChange: fresh},
	withoutCPU: {foundMistaken: withoutCPU, foundTried: compared, foundChange: fresh},
}

// after is the standing that a finding leads to; ok is false where it changes nothing.
func (s standing) after(f finding) (next standing, ok bool) {
	next, ok = turns[s][f]
	return next, ok
}

// A replan is the memory of a course's plans within one budget. The zero value knows of none; a new recording and a changed
// budget begin with it.
type replan struct {
	standing   standing
	fastest    seen // of the plans so far
	aloneTried bool // the device computed alone once
}

// heeds tells whether a finding would change anything.
func (r *replan) heeds(f finding) bool {
	_, ok := r.standing.after(f)
	return ok
}

// found moves on in the table. A changed budget leaves nothing of what was seen.
func (r *replan) found(f finding) {
	if f == foundChange {
		*r = replan{}
	}
	if next, ok := r.standing.after(f); ok {
		r.standing = next
	}
}

// forget drops what was seen, which no longer fits the budget. The plan in force stays as it stands.
func (r *replan) forget() { *r = replan{standing: r.standing} }

// A seen is a plan under which forwards took some time, in ns; 0 where no plan was seen.
type seen struct {
	draft
	period uint64
}

// or is the faster of two.
func (s seen) or(other seen) seen {
	if s.period == 0 || other.period > 0 && other.period < s.period {
		return other
	}
	return s
}

// beats tells whether the plan was faster than a period, by more than periods vary.
func (s seen) beats(period uint64) bool { return s.period > 0 && s.period+s.period/50 < period }

const (
	// patience is how many forwards have to run under a plan until reports alone show that it is mistaken: as many as the
	// worker times step by step. Newly measured times are medians over those, and show it at once.
	patience = 3

	// trial is how many forwards have to run under a plan until it is compared with others: enough for its step times to
	// arrive, and for a plan that is better by those.
	trial = 2*patience + 1
)

// off tells whether a predicted period differs from one that was seen by more than a tenth of the latter.
func off(predicted planner.Nanoseconds, seen uint64) bool {
	return abs(int64(predicted)-int64(seen)) > int64(seen)/10
}

// usesCPU tells whether the CPU computes although the device could.
func usesCPU(p planner.Plan) bool {
	return p.Mode.Mixes() && slices.ContainsFunc(p.Pages, func(page planner.Page) bool { return page.Placement.ByCPU() })
}

// same tells whether two plans mean the same to a worker, whatever their versions.
func same(a, b planner.Plan) bool {
	a.Version, a.Fill, a.First = b.Version, b.Fill, b.First // the last two do not travel
	return reflect.DeepEqual(a, b)
}

// budgetChanged passes over the small changes that allocators make from one forward to the next, unless the plan in force
// no longer fits.
func budgetChanged(inForce, newer planner.Plan) bool {
	if newer.Budget < inForce.Resident+inForce.Arena {
		return true
	}
	return abs(int64(newer.Budget-inForce.Budget)) > int64(inForce.Budget)/64
}

func abs(n int64) int64 { return max(n, -n) }
