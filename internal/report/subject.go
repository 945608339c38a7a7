package report

import "github.com/optimem/optimem/planner"

// A Subject is what a page tells of.
type Subject struct {
	Model     string
	Device    string // for people, "" where it is not known
	Simulated bool   // the times are those of a simulated card
	Estimated bool   // the times are estimates
	Manifest  planner.Manifest
	Machine   planner.Machine
	Plan      planner.Plan
	Curve     []planner.Point // what other budgets give, in order of budget; none where that is not known
	Run       *Run            // nil where nothing was run
	Remarks   []string        // what else is to be said on the page
}

// A Run is what a run under the plan told. Times are 0 where they are not known.
type Run struct {
	Forwards uint64
	Period   planner.Nanoseconds
	Plain    planner.Nanoseconds // of the plain model
	Bound    planner.Nanoseconds // by the latest times
	Peak     planner.Bytes       // the most that was allocated on the device
	Moved    planner.Bytes       // of weights to the device, in all forwards
	Equal    *bool               // to the plain model's result, bit for bit; nil where it was not compared
	Stalls   []planner.Nanoseconds
	Notes    []string
}

// Certificate is the page's claim.
func (s Subject) Certificate() Certificate {
	c := Certificate{Period: s.Plan.Period, Bound: s.Plan.Bound, Budget: s.Plan.Budget, Mode: s.Plan.Mode, Simulated: s.Simulated, Estimated: s.Estimated}
	for _, step := range s.Manifest.Steps {
		c.Compute += step.Compute
	}
	if s.Run != nil && s.Run.Bound > 0 {
		c.Bound = s.Run.Bound
	}
	if s.Run != nil && s.Run.Period > 0 {
		c.Period, c.Measured = s.Run.Period, true
	}
	return c
}
