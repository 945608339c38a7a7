package controller

import (
	"testing"
	"testing/synctest"

	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
)

// mostActivations is what the plan in force leaves to activations.
func mostActivations(talk talk) (most planner.Bytes) {
	for _, step := range talk.session.planning.course.plan.basis.Manifest.Steps {
		most = max(most, step.Activations)
	}
	return most
}

func TestAfterAShortageTheNextPlanThatIsAskedForSparesTheBytes(t *testing.T) {
	const needed = 20 << 20
	another := controllertest.Recorded()
	another.Calls++
	for name, test := range map[string]struct {
		manifest *ipc.Manifest
		want     planner.Bytes
	}{
		"of the same recording":           {controllertest.Recorded(), needed},
		"of another one, which has peaks": {another, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, nil, func(t *testing.T, talk talk) {
				first := talk.worker.Run(t)
				talk.worker.Say(t, &ipc.Short{ActivationBytes: needed}, controllertest.Report(1, 1, first.PeriodNS))
				synctest.Wait()
				if plans := talk.session.planning.plans; plans != 2 {
					t.Errorf("%d plans, though nobody has asked", plans)
				}
				talk.worker.Say(t, test.manifest, controllertest.Measured())
				controllertest.Hear[ipc.Plan](t, talk.worker)
				synctest.Wait()
				if got := mostActivations(talk); got != test.want {
					t.Errorf("%v are left to activations, want %v", got, test.want)
				}
				talk.worker.Say(t, another, controllertest.Measured()) // the next recording knows its own peaks
				controllertest.Hear[ipc.Plan](t, talk.worker)
				synctest.Wait()
				if got := mostActivations(talk); got != 1<<20 {
					t.Errorf("%v are left to activations of another recording", got)
				}
			})
		})
	}
}

func TestBytesThatCannotBeSparedAreForgotten(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		w := talk.worker
		recorded, measured := controllertest.Recorded(), controllertest.Measured()
		recorded.Wish.VRAM, measured.FreeBytes = "", controllertest.Units*controllertest.UnitBytes
		w.Open(t)
		w.Say(t, controllertest.Registered())
		controllertest.Hear[ipc.Plan](t, w)
		w.Say(t, recorded, measured)
		good := controllertest.Hear[ipc.Plan](t, w)
		w.Say(t, &ipc.Short{ActivationBytes: 1 << 40}, recorded, measured)
		if refused := controllertest.Hear[ipc.Refused](t, w); refused.Answers != 2 {
			t.Errorf("%+v", refused)
		}
		w.Say(t, recorded, measured)
		if again := controllertest.Hear[ipc.Plan](t, w); again.BudgetBytes != good.BudgetBytes {
			t.Errorf("the budget is %d, before the shortage it was %d", again.BudgetBytes, good.BudgetBytes)
		}
	})
}

func TestTheSameRecordingOnceMoreKeepsWhatIsKnownOfIt(t *testing.T) {
	c := newCourse(*controllertest.Recorded())
	c.alone, c.noCPU, c.spare = *controllertest.Measured(), true, 7
	c.fastest, c.standing, c.plan = seen{period: 5}, compared, &draft{}
	same := c.next(*controllertest.Recorded(), 5)
	if !same.noCPU || same.spare != 7 || len(same.alone.StepComputeNS) == 0 {
		t.Errorf("the recording's own was forgotten: %+v", same)
	}
	if same.fastest.period != 0 || same.standing != fresh || same.plan != nil {
		t.Errorf("what was seen of plans came along: %+v", same.replan)
	}
	another := controllertest.Recorded()
	another.Units[0].Bytes++
	if next := c.next(*another, 5); next.noCPU || next.spare != 0 || len(next.alone.StepComputeNS) != 0 {
		t.Errorf("another recording has %+v", next)
	}
	var none *course
	if next := none.next(*another, 5); next.spare != 0 || next.standing != fresh {
		t.Errorf("the first recording has %+v", next)
	}
}

func TestTimesWithoutTheCPUAreThoseOfTheDeviceAlone(t *testing.T) {
	alone, both := controllertest.Measured(), controllertest.Measured()
	alone.StepComputeNS[0], both.StepComputeNS[0] = 1, 9
	both.StepCPUNS = make([]uint64, controllertest.Units)
	c := newCourse(*controllertest.Recorded()).with(*alone).with(*both)
	if times := c.times(); len(times.StepCPUNS) == 0 || times.StepComputeNS[0] != 9 {
		t.Errorf("with the CPU the times are %+v", times)
	}
	if times := c.withoutCPU().times(); len(times.StepCPUNS) != 0 || times.StepComputeNS[0] != 1 {
		t.Errorf("without the CPU the times are %+v", times)
	}
	if again := c.withoutCPU().with(*alone); again.noCPU {
		t.Error("times without the CPU leave it out for good")
	}
}

func TestReportsOfOtherPlansShowNothing(t *testing.T) {
	c := &course{plan: &draft{Plan: planner.Plan{Version: 2, Period: 100}}, began: 10, replan: replan{standing: predicted}}
	for name, test := range map[string]struct {
		report          ipc.Report
		mistaken, tried bool
	}{
		"off, after seven forwards": {ipc.Report{PlanVersion: 2, Forwards: 10 + trial, PeriodNS: 200}, true, true},
		"off, after three":          {ipc.Report{PlanVersion: 2, Forwards: 10 + patience, PeriodNS: 200}, true, false},
		"off, after two":            {ipc.Report{PlanVersion: 2, Forwards: 10 + patience - 1, PeriodNS: 200}, false, false},
		"as predicted":              {ipc.Report{PlanVersion: 2, Forwards: 10 + trial, PeriodNS: 100}, false, true},
		"of an older plan":          {ipc.Report{PlanVersion: 1, Forwards: 10 + trial, PeriodNS: 200}, false, false},
		"before a period is known":  {ipc.Report{PlanVersion: 2, Forwards: 10 + trial}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.isMistaken(test.report, patience); got != test.mistaken {
				t.Errorf("mistaken: %v", got)
			}
			if got := c.isTriedOut(test.report); got != test.tried {
				t.Errorf("tried out: %v", got)
			}
		})
	}
}
