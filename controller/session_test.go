package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/probe"
	"github.com/optimem/optimem/planner/search"
)

// A journal keeps events.
type journal struct {
	mu     sync.Mutex
	events []Event // under mu
}

func (j *journal) Observe(event Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, event)
}

func (j *journal) all() []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Event(nil), j.events...)
}

// names are the events in short.
func (j *journal) names() (names []string) {
	for _, event := range j.all() {
		name := strings.TrimPrefix(fmt.Sprintf("%T", event), "controller.")
		switch e := event.(type) {
		case Planned:
			name += fmt.Sprintf(" %d", e.Plan.Version)
		case Failure:
			name += " " + e.Code
		case Ended:
			name += " " + e.State.String()
		}
		names = append(names, name)
	}
	return names
}

func (j *journal) end() Ended {
	events := j.all()
	ended, _ := events[len(events)-1].(Ended)
	return ended
}

// talk is a session with a worker at the other end, in a bubble.
type talk struct {
	worker  *controllertest.Worker
	session *Session
	journal *journal
	hangUp  context.CancelFunc
}

// converse runs a test with a session in it. Whatever the test leaves open is closed.
func converse(t *testing.T, change func(*Config), test func(t *testing.T, talk talk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		talk := begin(t, change)
		defer func() {
			talk.hangUp()
			<-talk.session.Done()
			_ = talk.worker.Close()
		}()
		test(t, talk)
	})
}

func begin(t *testing.T, change func(*Config)) talk {
	t.Helper()
	config := Config{
		Logger: slog.New(slog.DiscardHandler), Prober: probe.Fixed(probe.Reading{}), Observer: &journal{}, Broker: Unshared{}, MaxSessions: 1,
	}
	if change != nil {
		change(&config)
	}
	worker, ours := controllertest.Pipe()
	s := newSession("s1", 4242, nil, ours, config)
	s.admit = func() error {
		if config.MaxSessions == 0 {
			return errors.New("full")
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	go s.run(ctx)
	written, _ := config.Observer.(*journal)
	return talk{worker, s, written, cancel}
}

func TestAConversationFromHelloToBye(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		w := talk.worker
		welcome := w.Open(t)
		if diff := cmp.Diff(&ipc.Welcome{Session: "s1", Terms: terms}, welcome); diff != "" {
			t.Error(diff)
		}
		w.Say(t, controllertest.Registered())
		if plan := controllertest.Hear[ipc.Plan](t, w); plan.Version != 0 {
			t.Errorf("the first plan is version %d", plan.Version)
		}
		w.Say(t, controllertest.Recorded(), controllertest.Measured())
		plan := controllertest.Hear[ipc.Plan](t, w)
		if plan.Version != 1 || plan.PeriodNS == 0 || plan.BoundNS == 0 || plan.BudgetBytes > controllertest.Units*controllertest.UnitBytes/2 {
			t.Errorf("the plan from the recording is %+v", plan)
		}
		w.Say(t, controllertest.Report(1, 3, plan.PeriodNS), controllertest.Outcome(3), &ipc.Bye{Reason: "done"})
		w.HearEnd(t)
		<-talk.session.Done()
		want := []string{"Opened", "Planned 0", "Weighed", "Planned 1", "Reported", "Finished", "Ended closed"}
		if diff := cmp.Diff(want, talk.journal.names()); diff != "" {
			t.Error(diff)
		}
	})
}

// conversations lead a worker to each state in which messages can come.
var conversations = map[State]func(t *testing.T, w *controllertest.Worker){
	Greeting: func(*testing.T, *controllertest.Worker) {},
	Welcomed: func(t *testing.T, w *controllertest.Worker) { w.Open(t) },
	Recording: func(t *testing.T, w *controllertest.Worker) {
		w.Open(t)
		w.Say(t, controllertest.Registered())
		controllertest.Hear[ipc.Plan](t, w)
	},
	Measuring: func(t *testing.T, w *controllertest.Worker) {
		w.Open(t)
		w.Say(t, controllertest.Registered())
		controllertest.Hear[ipc.Plan](t, w)
		w.Say(t, controllertest.Recorded())
	},
	Running: func(t *testing.T, w *controllertest.Worker) { w.Run(t) },
	Remeasuring: func(t *testing.T, w *controllertest.Worker) {
		w.Run(t)
		w.Say(t, controllertest.Recorded())
	},
}

// messages are one for each step that a worker can take.
var messages = map[step]func() any{
	stepHello:      func() any { return controllertest.Hello() },
	stepRegistered: func() any { return controllertest.Registered() },
	stepRecorded:   func() any { return controllertest.Recorded() },
	stepMeasured:   func() any { return controllertest.Measured() },
	stepReport:     func() any { return controllertest.Report(0, 1, 0) },
	stepShort:      func() any { return &ipc.Short{RequestedBytes: 4096} },
	stepOutcome:    func() any { return controllertest.Outcome(1) },
	stepBye:        func() any { return &ipc.Bye{Reason: "done"} },
	stepFailure:    func() any { return &ipc.Failure{Code: ipc.CodeBadInput, Text: "no such model"} },
}

func TestEveryMessageInEveryState(t *testing.T) {
	for state, lead := range conversations {
		for by, message := range messages {
			want, inOrder := state.next(by)
			if by == stepRegistered || by == stepMeasured { // which are answered at once
				if planned, ok := want.next(stepPlanned); ok {
					want = planned
				}
			}
			t.Run(fmt.Sprintf("%s while %v", by, state), func(t *testing.T) {
				converse(t, nil, func(t *testing.T, talk talk) {
					lead(t, talk.worker)
					talk.worker.Say(t, message())
					synctest.Wait()
					if inOrder {
						if talk.session.state != want {
							t.Errorf("it is %v, want %v", talk.session.state, want)
						}
						return
					}
					failure := controllertest.Hear[ipc.Failure](t, talk.worker)
					if failure.Code != ipc.CodeProtocol || !strings.Contains(failure.Text, state.String()) {
						t.Errorf("failure %+v", failure)
					}
					talk.worker.HearEnd(t)
					<-talk.session.Done()
					if end := talk.journal.end(); end.State != Failed {
						t.Errorf("it ended %v", end.State)
					}
				})
			})
		}
	}
}

func TestAMessageOfTheControllerIsOutOfOrder(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Say(t, &ipc.Welcome{})
		if failure := controllertest.Hear[ipc.Failure](t, talk.worker); failure.Code != ipc.CodeProtocol {
			t.Errorf("failure %+v", failure)
		}
	})
}

func TestFailures(t *testing.T) {
	hello := func(change func(*ipc.Hello)) []any {
		h := controllertest.Hello()
		change(h)
		return []any{h}
	}
	recorded := func(change func(*ipc.Manifest, *ipc.Measured)) []any {
		m, measured := controllertest.Recorded(), controllertest.Measured()
		change(m, measured)
		return []any{controllertest.Hello(), controllertest.Registered(), m, measured}
	}
	running := func(message any) []any {
		return []any{controllertest.Hello(), controllertest.Registered(), controllertest.Recorded(), controllertest.Measured(), message}
	}
	for name, test := range map[string]struct {
		say    []any
		change func(*Config)
		code   string
	}{
		"another protocol":     {say: hello(func(h *ipc.Hello) { h.Protocol++ }), code: ipc.CodeProtocol},
		"a card beyond reason": {say: hello(func(h *ipc.Hello) { h.Device.TotalBytes = math.MaxUint64 }), code: ipc.CodeProtocol},
		"too many sessions":    {say: hello(func(*ipc.Hello) {}), change: func(c *Config) { c.MaxSessions = 0 }, code: ipc.CodeBusy},
		"a link beyond reason": {say: recorded(func(_ *ipc.Manifest, m *ipc.Measured) { m.LinkBytesPerSecond = math.MaxUint64 }),
			code: ipc.CodeProtocol},
		"a report of a plan that never was": {say: running(controllertest.Report(2, 1, 1)), code: ipc.CodeProtocol},
		"a shortage beyond reason":          {say: running(&ipc.Short{FreeBytes: math.MaxUint64}), code: ipc.CodeProtocol},
		"a report beyond reason":            {say: running(controllertest.Report(1, math.MaxUint64, 1)), code: ipc.CodeProtocol},
		"an outcome beyond reason":          {say: running(controllertest.Outcome(math.MaxUint64)), code: ipc.CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, test.change, func(t *testing.T, talk talk) {
				talk.worker.Say(t, test.say...)
				failure := hearFailure(t, talk.worker)
				if failure.Code != test.code || failure.Text == "" {
					t.Errorf("failure %+v, want code %s", failure, test.code)
				}
				talk.worker.HearEnd(t)
				<-talk.session.Done()
				if names := talk.journal.names(); names[len(names)-1] != "Ended failed" || names[len(names)-2] != "Failure "+test.code {
					t.Errorf("events %q", names)
				}
			})
		})
	}
}

// hearFailure passes over what comes before a failure.
func hearFailure(t *testing.T, w *controllertest.Worker) *ipc.Failure {
	t.Helper()
	for {
		message, err := w.Receive()
		if err != nil {
			t.Fatalf("wait for a failure: %v", err)
		}
		if failure, ok := message.(*ipc.Failure); ok {
			return failure
		}
	}
}

func TestWhatCannotBePlannedIsRefusedAndMayBeAskedAgain(t *testing.T) {
	registered := func(change func(*ipc.Manifest)) []any {
		m := controllertest.Registered()
		change(m)
		return []any{m}
	}
	recorded := func(change func(*ipc.Manifest, *ipc.Measured)) []any {
		m, measured := controllertest.Recorded(), controllertest.Measured()
		change(m, measured)
		return []any{m, measured}
	}
	for name, say := range map[string][]any{
		"an unknown mode":        registered(func(m *ipc.Manifest) { m.Wish.Mode = "fast" }),
		"a wish that is no size": registered(func(m *ipc.Manifest) { m.Wish.VRAM = "lots" }),
		"weights beyond reason":  registered(func(m *ipc.Manifest) { m.Units[0].Bytes = math.MaxUint64 }),
		"a budget too small":     recorded(func(m *ipc.Manifest, _ *ipc.Measured) { m.Wish.VRAM = "1KiB" }),
		"a use of no step":       recorded(func(m *ipc.Manifest, _ *ipc.Measured) { m.Units[0].Uses[0].Last = 1 << 40 }),
		"times of other steps":   recorded(func(_ *ipc.Manifest, m *ipc.Measured) { m.StepComputeNS = m.StepComputeNS[1:] }),
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, nil, func(t *testing.T, talk talk) {
				w, good := talk.worker, []any{controllertest.Registered()}
				w.Open(t)
				if len(say) > 1 {
					w.Say(t, good...)
					controllertest.Hear[ipc.Plan](t, w)
					good = []any{controllertest.Recorded(), controllertest.Measured()}
				}
				for asked := range uint64(2) {
					w.Say(t, say...)
					refused := controllertest.Hear[ipc.Refused](t, w)
					if want := (asked + 1) * uint64(len(say)-1); refused.Code != ipc.CodeBadInput || refused.Text == "" || refused.Answers != want {
						t.Errorf("%+v, want an answer to %d times", refused, want)
					}
				}
				w.Say(t, good...)
				controllertest.Hear[ipc.Plan](t, w)
				synctest.Wait()
				if names := talk.journal.names(); names[len(names)-1] != fmt.Sprintf("Planned %d", len(say)-1) {
					t.Errorf("events %q", names)
				}
			})
		})
	}
}

func TestARefusedRecordingLeavesTheOneBeforeInForce(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		w := talk.worker
		plan := w.Run(t)
		tight := controllertest.Recorded()
		tight.Wish.VRAM = "1KiB"
		w.Say(t, tight, slower(4))
		if refused := controllertest.Hear[ipc.Refused](t, w); refused.Answers != 2 {
			t.Errorf("%+v", refused)
		}
		synctest.Wait()
		if talk.session.state != Running {
			t.Errorf("it is %v", talk.session.state)
		}
		w.Say(t, controllertest.Report(1, 7, 2*plan.PeriodNS), slower(4)) // corrects the plan in force, as if nothing had been
		if next := controllertest.Hear[ipc.Plan](t, w); next.Version != 2 || next.BudgetBytes != plan.BudgetBytes {
			t.Errorf("plan %d with a budget of %d after one of %d", next.Version, next.BudgetBytes, plan.BudgetBytes)
		}
	})
}

func TestAShortageIsNoEnd(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		short := ipc.Short{RequestedBytes: 4096, FreeBytes: 1, WeightsBytes: 2, ActivationBytes: 3}
		talk.worker.Say(t, &short)
		synctest.Wait()
		events := talk.journal.all()
		if diff := cmp.Diff(Event(RanShort{Of: "s1", Short: short}), events[len(events)-1]); diff != "" {
			t.Error(diff)
		}
		talk.worker.Say(t, controllertest.Recorded(), controllertest.Measured())
		controllertest.Hear[ipc.Plan](t, talk.worker)
	})
}

func TestAWorkerThatCannotOpenASessionSaysWhy(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Say(t, &ipc.Failure{Code: ipc.CodeBadInput, Text: "no such model: resnet9000"})
		<-talk.session.Done()
		want := []Event{
			Failure{Of: "s1", Code: ipc.CodeBadInput, Text: "no such model: resnet9000", ByWorker: true},
			Ended{Of: "s1", State: Failed},
		}
		if diff := cmp.Diff(want, talk.journal.all()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestHelloMustComeInTime(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		begun := time.Now()
		failure := controllertest.Hear[ipc.Failure](t, talk.worker)
		if failure.Code != ipc.CodeProtocol || time.Since(begun) != ipc.HelloGrace {
			t.Errorf("%+v after %v", failure, time.Since(begun))
		}
	})
}

func TestAfterHelloASessionMayBeSilent(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		time.Sleep(100 * ipc.HelloGrace) // in the bubble
		synctest.Wait()
		if talk.session.state != Running {
			t.Errorf("it is %v", talk.session.state)
		}
	})
}

// slower is what is measured where each step takes several times as long.
func slower(by uint64) *ipc.Measured {
	measured := controllertest.Measured()
	for i := range measured.StepComputeNS {
		measured.StepComputeNS[i] *= by
	}
	return measured
}

func TestLaterTimesLeadToAPlanOnlyWhereThePredictionIsOff(t *testing.T) {
	for name, test := range map[string]struct {
		say  func(period uint64) []any
		want bool
	}{
		"no report yet":                    {func(uint64) []any { return []any{slower(4)} }, false},
		"as predicted":                     {func(p uint64) []any { return []any{controllertest.Report(1, 7, p), slower(4)} }, false},
		"off by a twentieth":               {func(p uint64) []any { return []any{controllertest.Report(1, 7, p+p/20), slower(4)} }, false},
		"off by a half":                    {func(p uint64) []any { return []any{controllertest.Report(1, 7, p+p/2), slower(4)} }, true},
		"faster by a half":                 {func(p uint64) []any { return []any{controllertest.Report(1, 7, p/2), slower(4)} }, true},
		"the report comes after the times": {func(p uint64) []any { return []any{slower(4), controllertest.Report(1, 7, p*2)} }, true},
		"off, but the times are the same":  {func(p uint64) []any { return []any{controllertest.Report(1, 7, p*2), slower(1)} }, false},
		"off under an older plan":          {func(p uint64) []any { return []any{controllertest.Report(0, 7, p*2), slower(4)} }, false},
		"off, in too few forwards":         {func(p uint64) []any { return []any{slower(4), controllertest.Report(1, patience-1, p*2)} }, false},
		"off, in enough forwards by now": {func(p uint64) []any {
			return []any{slower(4), controllertest.Report(1, patience-1, p*2), controllertest.Report(1, patience, p*2)}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, nil, func(t *testing.T, talk talk) {
				plan := talk.worker.Run(t)
				talk.worker.Say(t, test.say(plan.PeriodNS)...)
				synctest.Wait()
				if got := talk.session.planning.course.plan.Version == 2; got != test.want {
					t.Errorf("plan %d is in force, want a new one: %v", talk.session.planning.course.plan.Version, test.want)
				}
			})
		})
	}
}

func TestTheCPUTakesPartOnlyWhereThatIsFaster(t *testing.T) {
	registered, recorded, alone, both := controllertest.Registered(), controllertest.Recorded(), controllertest.Measured(), controllertest.Measured()
	registered.Wish.Mode, registered.Wish.VRAM, recorded.Wish.Mode, recorded.Wish.VRAM = "auto", "50%", "auto", "50%"
	for i := range alone.StepComputeNS {
		alone.StepComputeNS[i], both.StepComputeNS[i] = 10_000, 900_000 // it has waited for the host
	}
	both.StepCPUNS = slices.Repeat([]uint64{50_000}, controllertest.Units)
	for name, test := range map[string]struct {
		forwards uint64
		slower   bool
		version  int
	}{
		"as fast as the device alone": {trial, false, 2},
		"slower":                      {trial, true, 3},
		"slower, in too few forwards": {trial - 1, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, nil, func(t *testing.T, talk talk) {
				talk.worker.Open(t)
				talk.worker.Say(t, registered)
				controllertest.Hear[ipc.Plan](t, talk.worker)
				talk.worker.Say(t, recorded, alone)
				first := controllertest.Hear[ipc.Plan](t, talk.worker)
				talk.worker.Say(t, recorded, both)
				mixed := controllertest.Hear[ipc.Plan](t, talk.worker)
				if !usesCPU(talk.session.planning.course.plan.Plan) || mixed.Version != 2 {
					t.Fatalf("plan %d leaves nothing to the CPU", mixed.Version)
				}
				period := first.PeriodNS
				if test.slower {
					period++
				}
				talk.worker.Say(t, controllertest.Report(2, test.forwards, period))
				synctest.Wait()
				got := talk.session.planning.course.plan.Plan
				if got.Version != test.version || usesCPU(got) != (test.version == 2) {
					t.Errorf("plan %d is in force, not %d", got.Version, test.version)
				}
				if test.version < 3 {
					return
				}
				if uint64(got.Period) != first.PeriodNS {
					t.Errorf("without the CPU it takes %v, not %d ns as before", got.Period, first.PeriodNS)
				}
				for i, version := range []int{4, 4} { // it was worse still, and no better the second time
					talk.worker.Say(t, controllertest.Report(uint64(3+i), test.forwards*uint64(2+i), 2*period))
					synctest.Wait()
					if got := talk.session.planning.course.plan; got.Version != version || !usesCPU(got.Plan) {
						t.Errorf("plan %d is in force, not %d", got.Version, version)
					}
				}
				less := *both
				less.FreeBytes = first.BudgetBytes * 3 / 4
				talk.worker.Say(t, &less) // the CPU takes part again
				synctest.Wait()
				if got := talk.session.planning.course.plan; got.Version != 5 || !usesCPU(got.Plan) {
					t.Errorf("plan %d for less memory", got.Version)
				}
			})
		})
	}
}

func TestAPlanThatTurnsOutSlowerGivesWayToTheOneBefore(t *testing.T) {
	for name, test := range map[string]struct {
		forwards, times uint64 // the first plan's period
		version         int
	}{
		"slower":                      {trial, 9, 3},
		"slower, in too few forwards": {trial - 1, 9, 2},
		"as fast":                     {trial, 2, 2},
		"slower, as the one before would be by now": {trial, 3, 2},
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, nil, func(t *testing.T, talk talk) {
				first := talk.worker.Run(t)
				talk.worker.Say(t, controllertest.Report(1, 7, 2*first.PeriodNS), slower(4))
				controllertest.Hear[ipc.Plan](t, talk.worker)
				talk.worker.Say(t, controllertest.Report(2, 7+test.forwards, test.times*first.PeriodNS))
				synctest.Wait()
				if got := talk.session.planning.course.plan.Version; got != test.version {
					t.Fatalf("plan %d is in force, not %d", got, test.version)
				}
				if test.version < 3 {
					return
				}
				again := controllertest.Hear[ipc.Plan](t, talk.worker)
				again.Version, again.Answers = first.Version, first.Answers
				if diff := cmp.Diff(first, again); diff != "" {
					t.Errorf("this is not the plan from before: %s", diff)
				}
				talk.worker.Say(t, controllertest.Report(3, 30, 9*first.PeriodNS), slower(9), controllertest.Report(3, 60, 9*first.PeriodNS))
				synctest.Wait()
				if got := talk.session.planning.course.plan.Version; got != 3 {
					t.Errorf("plan %d follows one that was settled", got)
				}
				less := slower(9)
				less.FreeBytes = first.BudgetBytes * 3 / 4
				talk.worker.Say(t, less)
				if next := controllertest.Hear[ipc.Plan](t, talk.worker); next.Version != 4 || next.BudgetBytes >= first.BudgetBytes {
					t.Errorf("plan %d with a budget of %d for less memory", next.Version, next.BudgetBytes)
				}
			})
		})
	}
}

func TestStepsThatOneSideHasNeverSeenAreEstimatedThere(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		measured := controllertest.Measured()
		measured.StepCPUNS = slices.Repeat([]uint64{50_000}, controllertest.Units)
		measured.StepComputeNS[0] = 0
		talk.worker.Open(t)
		talk.worker.Say(t, controllertest.Registered())
		controllertest.Hear[ipc.Plan](t, talk.worker)
		talk.worker.Say(t, controllertest.Recorded(), measured)
		controllertest.Hear[ipc.Plan](t, talk.worker)
		synctest.Wait()
		if steps := talk.session.planning.course.plan.basis.Manifest.Steps; steps[0].Compute == 0 {
			t.Errorf("the first of %+v takes the device no time", steps)
		}
	})
}

func TestAPlanThatNoLongerFitsIsNotGoneBackTo(t *testing.T) {
	for name, test := range map[string]struct {
		free    uint64 // in hundredths of what the fastest plan had
		version int
	}{
		"it fits":       {100, 5},
		"a little less": {98, 4}, // in two steps, each too small to be a change
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, nil, func(t *testing.T, talk talk) {
				base := talk.worker.Run(t).BudgetBytes * 3 / 4
				with := func(times, free uint64) *ipc.Measured {
					measured := slower(times)
					measured.FreeBytes = base * free / 100
					return measured
				}
				talk.worker.Say(t, with(1, 100))
				fastest := controllertest.Hear[ipc.Plan](t, talk.worker)
				period := fastest.PeriodNS
				talk.worker.Say(t, controllertest.Report(2, 7, 2*period), with(4, (100+test.free)/2))
				controllertest.Hear[ipc.Plan](t, talk.worker)
				talk.worker.Say(t, with(5, test.free), controllertest.Report(3, 7+trial, 90*period))
				controllertest.Hear[ipc.Plan](t, talk.worker)
				talk.worker.Say(t, controllertest.Report(4, 7+2*trial, 90*period))
				synctest.Wait()
				if got := talk.session.planning.course.plan; got.Version != test.version {
					t.Errorf("plan %d with a budget of %v is in force, not plan %d", got.Version, got.Budget, test.version)
				}
			})
		})
	}
}

func TestLessFreeMemoryLeadsToAPlan(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		plan := talk.worker.Run(t)
		measured := controllertest.Measured()
		measured.FreeBytes = plan.BudgetBytes * 3 / 4
		talk.worker.Say(t, measured)
		if next := controllertest.Hear[ipc.Plan](t, talk.worker); next.Version != 2 || next.BudgetBytes >= plan.BudgetBytes {
			t.Errorf("plan %d with a budget of %d after one of %d", next.Version, next.BudgetBytes, plan.BudgetBytes)
		}
	})
}

func TestAPlanThatCannotBeMadeLaterLeavesTheOneInForce(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		measured := controllertest.Measured()
		measured.FreeBytes = 1
		talk.worker.Say(t, measured)
		synctest.Wait()
		if talk.session.state != Running || talk.session.planning.course.plan.Version != 1 {
			t.Errorf("it is %v with plan %d", talk.session.state, talk.session.planning.course.plan.Version)
		}
	})
}

func TestAnotherWayThroughTheModelLeadsToAPlan(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		talk.worker.Say(t, controllertest.Recorded(), controllertest.Report(1, 3, 5), slower(4))
		if plan := controllertest.Hear[ipc.Plan](t, talk.worker); plan.Version != 2 {
			t.Errorf("plan %d", plan.Version)
		}
		talk.worker.Say(t, controllertest.Report(2, 3+trial, 1e12))
		synctest.Wait()
		if got := talk.session.planning.course.plan.Version; got != 2 {
			t.Errorf("plan %d is of another recording", got)
		}
	})
}

func TestShrink(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		before := talk.worker.Run(t)
		for version := uint64(2); version <= 3; version++ {
			if err := talk.session.Shrink(t.Context(), controllertest.UnitBytes, time.Second); err != nil {
				t.Fatal(err)
			}
			shrink := controllertest.Hear[ipc.Shrink](t, talk.worker)
			if shrink.Bytes != controllertest.UnitBytes || shrink.WithinNS != 1e9 {
				t.Errorf("%+v", shrink)
			}
			plan := controllertest.Hear[ipc.Plan](t, talk.worker)
			if plan.Version != version || plan.BudgetBytes > before.BudgetBytes-controllertest.UnitBytes {
				t.Errorf("plan %d with a budget of %d after %d", plan.Version, plan.BudgetBytes, before.BudgetBytes)
			}
			before = plan
		}
	})
}

func TestShrinkingTooFarSendsNothing(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		plan := talk.worker.Run(t)
		for _, size := range []planner.Bytes{-1, 0, planner.Bytes(plan.BudgetBytes) * 2, math.MaxInt64} {
			if err := talk.session.Shrink(t.Context(), size, time.Second); err == nil {
				t.Errorf("shrinking by %d went through", size)
			}
		}
		var small *search.TooSmallError
		if err := talk.session.Shrink(t.Context(), planner.Bytes(plan.BudgetBytes)-1, time.Second); !errors.As(err, &small) {
			t.Errorf("shrinking to one byte: %v", err)
		}
		talk.worker.Say(t, &ipc.Bye{})
		talk.worker.HearEnd(t)
	})
}

func TestShrinkingBeforeThereIsAPlanIsTooEarly(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Open(t)
		if err := talk.session.Shrink(t.Context(), 1, time.Second); !errors.Is(err, ErrOutOfOrder) {
			t.Error(err)
		}
	})
}

func TestStop(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		for range 2 { // the second time says nothing more
			if err := talk.session.Stop(t.Context(), "enough"); err != nil {
				t.Fatal(err)
			}
		}
		if stop := controllertest.Hear[ipc.Stop](t, talk.worker); stop.Reason != "enough" {
			t.Errorf("%+v", stop)
		}
		talk.worker.Say(t, controllertest.Recorded(), controllertest.Measured(), controllertest.Report(1, 9, 1), &ipc.Bye{})
		talk.worker.HearEnd(t)
		<-talk.session.Done()
		names := talk.journal.names()
		if diff := cmp.Diff([]string{"Reported", "Ended closed"}, names[len(names)-2:]); diff != "" {
			t.Error(diff)
		}
		if err := talk.session.Stop(t.Context(), "again"); !errors.Is(err, ErrOver) {
			t.Errorf("stop after the end: %v", err)
		}
	})
}

func TestStopBeforeHelloIsTooEarly(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		if err := talk.session.Stop(t.Context(), "enough"); !errors.Is(err, ErrOutOfOrder) {
			t.Error(err)
		}
	})
}

func TestTheControllerLeavesWithABye(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		talk.hangUp()
		controllertest.Hear[ipc.Bye](t, talk.worker)
		talk.worker.HearEnd(t)
		<-talk.session.Done()
		if end := talk.journal.end(); end.State != Closed || end.Err != nil {
			t.Errorf("%+v", end)
		}
	})
}

func TestAWorkerThatDoesNotReadDoesNotHoldUpTheEnd(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		for range 20 { // more messages than the connection holds
			go func() { _ = talk.session.Shrink(t.Context(), 1, time.Second) }()
		}
		synctest.Wait()
		begun := time.Now()
		talk.hangUp()
		<-talk.session.Done()
		if took := time.Since(begun); took != byeGrace {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAConnectionThatEndsWithoutByeIsLost(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		_ = talk.worker.Close()
		<-talk.session.Done()
		end := talk.journal.end()
		if end.State != Lost || !errors.Is(end.Err, ipc.ErrClosed) || !strings.Contains(end.Err.Error(), "4242") {
			t.Errorf("%+v", end)
		}
	})
}

func TestWhatWasSaidBeforeTheEndIsHeard(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		talk.worker.Say(t, controllertest.Report(1, 2, 1), controllertest.Outcome(2))
		_ = talk.worker.Close()
		<-talk.session.Done()
		names := talk.journal.names()
		if diff := cmp.Diff([]string{"Reported", "Finished", "Ended lost"}, names[len(names)-3:]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTheCauseOfALossComesFromTheProcess(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		worker := &Worker{pid: 4242, done: make(chan struct{}), err: &ExitError{PID: 4242, Signal: 9, Lines: []string{"last words"}}}
		talk.session.worker = worker
		talk.worker.Run(t)
		talk.worker.Say(t, controllertest.Report(1, 3, 1))
		_ = talk.worker.Close()
		time.AfterFunc(time.Second, func() { close(worker.done) }) // the process is reaped a little later
		<-talk.session.Done()
		var exit *ExitError
		if end := talk.journal.end(); !errors.As(end.Err, &exit) || exit.Forwards != 3 || !exit.Opened {
			t.Errorf("%+v", end.Err)
		}
	})
}

func TestAProcessThatLivesOnIsNotBlamed(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.session.worker = &Worker{pid: 4242, done: make(chan struct{})}
		talk.worker.Run(t)
		_ = talk.worker.Close()
		<-talk.session.Done()
		if end := talk.journal.end(); end.State != Lost || !strings.Contains(end.Err.Error(), "without bye") {
			t.Errorf("%+v", end)
		}
	})
}

func TestOverridesWinOverWishes(t *testing.T) {
	vram := planner.Share{MilliPercent: 75_000}
	converse(t, func(c *Config) { c.Overrides.VRAM = vram }, func(t *testing.T, talk talk) {
		if plan := talk.worker.Run(t); plan.BudgetBytes <= controllertest.Units*controllertest.UnitBytes/2 {
			t.Errorf("the budget is %d, as without the override", plan.BudgetBytes)
		}
	})
}

func TestTheCardMayKnowOfLessMemoryThanTheWorker(t *testing.T) {
	const free, held = 10 << 20, 2 << 20
	reading := probe.Reading{Cards: []probe.Card{{
		UUID: "00000000-0000-0000-0000-000000000001", TotalBytes: controllertest.CardBytes, FreeBytes: free,
		Processes: []probe.Process{{PID: 4242, Bytes: held}, {PID: 4243, Bytes: 1 << 30}},
	}}}
	converse(t, func(c *Config) { c.Prober = probe.Fixed(reading) }, func(t *testing.T, talk talk) {
		talk.worker.Open(t)
		synctest.Wait()
		if got := talk.session.planning.card.freeByReading(t.Context()); got != free+held {
			t.Errorf("the card offers %v", got)
		}
		talk.worker.Say(t, controllertest.Registered())
		if plan := controllertest.Hear[ipc.Plan](t, talk.worker); plan.BudgetBytes > free+held {
			t.Errorf("the budget is %d", plan.BudgetBytes)
		}
	})
}

type brokenProber struct{}

func (brokenProber) Probe(context.Context) (probe.Reading, error) {
	return probe.Reading{}, errors.New("no driver")
}

func TestACardThatCannotBeReadLeavesTheWordToTheWorker(t *testing.T) {
	converse(t, func(c *Config) { c.Prober = brokenProber{} }, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
	})
}

func TestLeast(t *testing.T) {
	for name, test := range map[string]struct {
		sizes []planner.Bytes
		want  planner.Bytes
	}{
		"nothing is known":       {[]planner.Bytes{0, 0}, 0},
		"one is known":           {[]planner.Bytes{0, 7, 0}, 7},
		"the smallest is chosen": {[]planner.Bytes{9, 7, 8}, 7},
	} {
		t.Run(name, func(t *testing.T) {
			if got := least(test.sizes...); got != test.want {
				t.Errorf("%d", got)
			}
		})
	}
}

func TestAPlanKnowsWhatIsOnTheDevice(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Open(t)
		talk.worker.Say(t, controllertest.Registered())
		zero := controllertest.Hear[ipc.Plan](t, talk.worker)
		measured := controllertest.Measured()
		measured.Held = residents(zero)
		clear(measured.StepComputeNS) // so that copies set the period, and bytes are worth keeping
		talk.worker.Say(t, controllertest.Recorded(), measured)
		one := controllertest.Hear[ipc.Plan](t, talk.worker)
		slower := controllertest.Measured() // and says of nothing that it is held
		for i := range slower.StepComputeNS {
			slower.StepComputeNS[i] = 1000
		}
		talk.worker.Say(t, controllertest.Report(1, 7, 2*one.PeriodNS), slower)
		controllertest.Hear[ipc.Plan](t, talk.worker)
		synctest.Wait()
		want := [][]uint64{nil, residents(zero), residents(one)}
		var got [][]uint64
		for _, event := range talk.journal.all() {
			if planned, ok := event.(Planned); ok {
				got = append(got, held(planned.Basis.Manifest))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(residents(zero)) == 0 || len(residents(one)) == 0 {
			t.Errorf("held by plans 0, 1 and 2: %s", diff)
		}
	})
}

// residents are the units that a plan keeps resident, in order.
func residents(p *ipc.Plan) (units []uint64) {
	for _, page := range p.Pages {
		if page.Placement == planner.Resident.String() {
			units = append(units, page.Units...)
		}
	}
	slices.Sort(units)
	return units
}

func held(m planner.Manifest) (units []uint64) {
	for i, u := range m.Units {
		if u.Held {
			units = append(units, uint64(i))
		}
	}
	return units
}
