package controller

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

// size is what a plan takes in all.
func size(p *ipc.Plan) planner.Bytes { return planner.Bytes(p.BudgetBytes + p.ReserveBytes) }

// silent fails the test where the worker has been told anything.
func silent(t *testing.T, talk talk) {
	t.Helper()
	synctest.Wait()
	talk.worker.Say(t, &ipc.Bye{})
	talk.worker.HearEnd(t)
}

func TestABudgetGoesDownAndUp(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		w := talk.worker
		first := w.Run(t)
		set := func(to planner.Bytes) {
			t.Helper()
			if err := talk.session.SetBudget(t.Context(), to, time.Second); err != nil {
				t.Fatal(err)
			}
		}
		low := size(first) - 2*controllertest.UnitBytes
		set(low)
		if shrink := controllertest.Hear[ipc.Shrink](t, w); shrink.Bytes != 2*controllertest.UnitBytes || shrink.WithinNS != 1e9 {
			t.Errorf("%+v", shrink)
		}
		if plan := controllertest.Hear[ipc.Plan](t, w); plan.Version != 2 || size(plan) > low {
			t.Errorf("plan %d takes %v, the budget is %v", plan.Version, size(plan), low)
		}
		set(low + controllertest.UnitBytes)
		if plan := controllertest.Hear[ipc.Plan](t, w); plan.Version != 3 || size(plan) <= low || size(plan) > low+controllertest.UnitBytes {
			t.Errorf("plan %d takes %v, the budget is %v", plan.Version, size(plan), low+controllertest.UnitBytes)
		}
		set(0)
		if plan := controllertest.Hear[ipc.Plan](t, w); plan.Version != 4 || plan.BudgetBytes != first.BudgetBytes {
			t.Errorf("plan %d has a budget of %d, before it was %d", plan.Version, plan.BudgetBytes, first.BudgetBytes)
		}
		set(controllertest.CardBytes) // makes no difference
		silent(t, talk)
	})
}

func TestABudgetBeforeThereIsAPlanHoldsForThePlansToCome(t *testing.T) {
	const low = 3 * controllertest.UnitBytes
	for name, when := range map[string]State{"before hello": Greeting, "before the manifest": Welcomed, "before it is recorded": Recording, "before its times": Measuring} {
		t.Run(name, func(t *testing.T) {
			converse(t, nil, func(t *testing.T, talk talk) {
				w := talk.worker
				conversations[when](t, w)
				if err := talk.session.SetBudget(t.Context(), low, 0); err != nil {
					t.Fatal(err)
				}
				rest := [][]any{{controllertest.Hello()}, {controllertest.Registered()}, {controllertest.Recorded(), controllertest.Measured()}}
				if when == Measuring {
					rest = [][]any{nil, nil, {nil, controllertest.Measured()}}
				}
				for i, messages := range rest[min(int(when), 2):] {
					for _, message := range messages {
						if message != nil {
							w.Say(t, message)
						}
					}
					if when == Greeting && i == 0 {
						controllertest.Hear[ipc.Welcome](t, w)
						continue
					}
					if plan := controllertest.Hear[ipc.Plan](t, w); size(plan) > low {
						t.Errorf("plan %d takes %v, the budget is %v", plan.Version, size(plan), planner.Bytes(low))
					}
				}
			})
		})
	}
}

func TestABudgetThatIsSetWhileARecordingIsAskedAboutHoldsWhereThatIsRefused(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		w := talk.worker
		plan := w.Run(t)
		tight := controllertest.Recorded()
		tight.Wish.VRAM = "1KiB"
		w.Say(t, tight)
		synctest.Wait()
		low := size(plan) - controllertest.UnitBytes
		if err := talk.session.SetBudget(t.Context(), low, 0); err != nil {
			t.Fatal(err)
		}
		w.Say(t, controllertest.Measured())
		controllertest.Hear[ipc.Refused](t, w)
		if shrink := controllertest.Hear[ipc.Shrink](t, w); shrink.Bytes != controllertest.UnitBytes {
			t.Errorf("%+v", shrink)
		}
		if next := controllertest.Hear[ipc.Plan](t, w); size(next) > low {
			t.Errorf("plan %d takes %v, the budget is %v", next.Version, size(next), low)
		}
	})
}

func TestABudgetTooSmallForAnyPlanChangesNothing(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		var small *search.TooSmallError
		if err := talk.session.SetBudget(t.Context(), 1, 0); !errors.As(err, &small) {
			t.Errorf("a budget of one byte: %v", err)
		}
		if err := talk.session.SetBudget(t.Context(), -1, 0); err == nil {
			t.Error("a budget of less than nothing was taken")
		}
		synctest.Wait()
		if p := talk.session.planning; p.budget != 0 || p.plans != 2 {
			t.Errorf("the budget is %v after %d plans", p.budget, p.plans)
		}
		silent(t, talk)
	})
}

func TestAWorkerThatIsStoppedHasNoBudget(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		if err := talk.session.Stop(t.Context(), "enough"); err != nil {
			t.Fatal(err)
		}
		if err := talk.session.SetBudget(t.Context(), 1<<30, 0); !errors.Is(err, ErrOutOfOrder) {
			t.Error(err)
		}
	})
}

func TestAPlanThatWasSlowInAnotherBudgetIsTriedAgain(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		plan := talk.worker.Run(t)
		if err := talk.session.SetBudget(t.Context(), size(plan)-controllertest.UnitBytes, 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c := talk.session.planning.course; c.standing != predicted || c.fastest.period != 0 {
			t.Errorf("it stands %v, and what was seen is %d ns", c.standing, c.fastest.period)
		}
	})
}

// A halver is a broker that grants half, and keeps what it hears.
type halver struct {
	free     []planner.Bytes
	points   []planner.Point
	err      error
	released []string
}

func (h *halver) Lease(s *Session, free planner.Bytes, curve Curve) planner.Bytes {
	h.free = append(h.free, free)
	h.points, h.err = curve(1, controllertest.CardBytes)
	return free / 2
}

func (h *halver) Release(s *Session) { h.released = append(h.released, s.ID()) }

func TestABrokerGrantsWhatASessionMayPlanWith(t *testing.T) {
	broker := &halver{}
	converse(t, func(c *Config) { c.Broker = broker }, func(t *testing.T, talk talk) {
		talk.worker.Open(t)
		registered, recorded, measured := controllertest.Registered(), controllertest.Recorded(), controllertest.Measured()
		registered.Wish.VRAM, recorded.Wish.VRAM = "", ""
		measured.FreeBytes = controllertest.Units * controllertest.UnitBytes
		talk.worker.Say(t, registered)
		controllertest.Hear[ipc.Plan](t, talk.worker)
		talk.worker.Say(t, recorded, measured)
		if plan := controllertest.Hear[ipc.Plan](t, talk.worker); size(plan) > controllertest.Units*controllertest.UnitBytes/2 {
			t.Errorf("the plan takes %v of a grant of %v", size(plan), planner.Bytes(controllertest.Units*controllertest.UnitBytes/2))
		}
		talk.worker.Say(t, &ipc.Bye{})
		<-talk.session.Done()
		if diff := cmp.Diff([]planner.Bytes{controllertest.CardBytes, controllertest.Units * controllertest.UnitBytes}, broker.free); diff != "" {
			t.Errorf("free as the broker heard it: %s", diff)
		}
		if diff := cmp.Diff([]string{"s1"}, broker.released); diff != "" {
			t.Errorf("released: %s", diff)
		}
	})
	if broker.err != nil || len(broker.points) != 2 {
		t.Fatalf("%v, %v", broker.points, broker.err)
	}
	if none, all := broker.points[0], broker.points[1]; none.Budget != 1 || none.Missing == 0 || none.Period != 0 ||
		all.Budget != controllertest.CardBytes || all.Missing != 0 || all.Period < controllertest.Units*controllertest.StepNS {
		t.Errorf("the curve has %+v", broker.points)
	}
}

func TestWithoutABrokerASessionMayHaveAll(t *testing.T) {
	if got := (Unshared{}).Lease(nil, 7, nil); got != 7 {
		t.Errorf("%v of 7", got)
	}
	(Unshared{}).Release(nil)
}
