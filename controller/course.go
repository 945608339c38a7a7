package controller

import (
	"reflect"

	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
)

// A course is one recording of a model, with its times and the plans made from both. A new recording is a new course, so that
// there is nothing to forget.
type course struct {
	manifest ipc.Manifest
	measured ipc.Measured  // the latest times
	newer    bool          // they are newer than the plan in force
	alone    ipc.Measured  // the latest times of the device alone, from before the CPU took part
	noCPU    bool          // the CPU takes no part, whatever its times
	spare    planner.Bytes // activations of a forward that ran out of memory; plans leave it as much
	plan     *draft        // the plan in force; nil before the first
	began    uint64        // forwards done when that plan was sent, as far as reported
	replan
}

// A draft is a plan and what it was made from.
type draft struct {
	planner.Plan
	basis Basis
}

func newCourse(manifest ipc.Manifest) *course { return &course{manifest: manifest} }

// next is the course of a manifest that follows this one. The same recording once more keeps what is known of the recording:
// the times of the device alone, that the CPU takes no part, and what plans spare, which is at least short bytes.
func (c *course) next(manifest ipc.Manifest, short planner.Bytes) *course {
	next := newCourse(manifest)
	if c != nil && reflect.DeepEqual(c.manifest, manifest) {
		next.alone, next.noCPU, next.spare = c.alone, c.noCPU, max(c.spare, short)
	}
	return next
}

// with is the course with newer times.
func (c *course) with(measured ipc.Measured) *course {
	next := *c
	next.measured, next.newer = measured, true
	if len(measured.StepCPUNS) == 0 {
		next.alone, next.noCPU = measured, false
	}
	return &next
}

// withoutCPU is the course with the CPU left out.
func (c *course) withoutCPU() *course {
	next := *c
	next.noCPU = true
	return &next
}

// times are those to plan with.
func (c *course) times() ipc.Measured {
	if c.noCPU {
		return deviceAlone(c.measured, c.alone)
	}
	return c.measured
}

// forPlanner is the manifest as the planner takes it. Residents of the plan in force count as held: once that was sent the
// worker has them, or is bringing them.
func (c *course) forPlanner() (planner.Manifest, error) {
	m, err := ipc.ToManifest(c.manifest, c.times())
	if err != nil {
		return m, err
	}
	m = m.WithEstimates()
	if c.plan != nil {
		hold(m, c.plan.Plan)
	}
	spare(m, c.spare)
	return m, nil
}

// saw tells whether a report is of the plan in force, with a period, once so many forwards have run under it.
func (c *course) saw(report ipc.Report, forwards uint64) bool {
	return report.PlanVersion == uint64(c.plan.Version) && report.PeriodNS > 0 && report.Forwards >= c.began+forwards
}

// isMistaken tells whether a report shows the prediction to be off, after so many forwards, where that matters.
func (c *course) isMistaken(report ipc.Report, forwards uint64) bool {
	return c.heeds(foundMistaken) && c.saw(report, forwards) && off(c.plan.Period, report.PeriodNS)
}

// isTriedOut tells whether the plan in force has had its trial just now.
func (c *course) isTriedOut(report ipc.Report) bool {
	return c.heeds(foundTried) && c.saw(report, trial)
}

// replace notes that another plan takes the place of the one in force, and why. What the latter was seen to take is kept,
// unless the budget is another one now.
func (c *course) replace(by planner.Plan, why finding, report ipc.Report) {
	if budgetChanged(c.plan.Plan, by) {
		c.found(foundChange)
		c.found(foundTimes)
		return
	}
	if report.PlanVersion == uint64(c.plan.Version) {
		c.fastest = c.fastest.or(seen{*c.plan, report.PeriodNS})
	}
	c.found(why)
}

// deviceAlone is measured without the CPU's times, and with the device's from before the CPU took part: later ones include
// waits for the host.
func deviceAlone(measured, before ipc.Measured) ipc.Measured {
	measured.StepCPUNS = nil
	if len(before.StepComputeNS) == len(measured.StepComputeNS) {
		measured.StepComputeNS = before.StepComputeNS
	}
	return measured
}

// hold marks the residents of a plan as held.
func hold(m planner.Manifest, inForce planner.Plan) {
	for _, page := range inForce.Pages {
		for _, unit := range page.Units {
			m.Units[unit].Held = page.Placement.Stays()
		}
	}
}

// spare raises the activations of the step with the most, to at least size bytes.
func spare(m planner.Manifest, size planner.Bytes) {
	most := -1
	for i, step := range m.Steps {
		if most < 0 || step.Activations > m.Steps[most].Activations {
			most = i
		}
	}
	if most >= 0 {
		m.Steps[most].Activations = max(m.Steps[most].Activations, size)
	}
}
