package controller

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
)

// observed runs a test with a session whose observer can be told later what to do.
func observed(t *testing.T, test func(t *testing.T, talk talk, observe func(func(Event)))) {
	t.Helper()
	var do func(Event) // set before the session has anything to tell
	converse(t, func(c *Config) { c.Observer = ObserverFunc(func(e Event) { do(e) }) }, func(t *testing.T, talk talk) {
		test(t, talk, func(observe func(Event)) { do = observe })
	})
}

func TestAnObserverMayCallTheSessionOfItsEvent(t *testing.T) {
	observed(t, func(t *testing.T, talk talk, observe func(func(Event))) {
		var replies []error
		observe(func(event Event) {
			switch e := event.(type) {
			case Planned:
				if e.Plan.Version == 1 {
					replies = append(replies, talk.session.SetBudget(t.Context(), taken(e.Plan)-controllertest.UnitBytes, time.Second))
				}
			case Reported:
				replies = append(replies, talk.session.Stop(t.Context(), "enough"))
			case Ended:
				replies = append(replies, talk.session.Stop(t.Context(), "again"))
			}
		})
		talk.worker.Run(t)
		controllertest.Hear[ipc.Shrink](t, talk.worker)
		controllertest.Hear[ipc.Plan](t, talk.worker)
		talk.worker.Say(t, controllertest.Report(2, 1, 1))
		controllertest.Hear[ipc.Stop](t, talk.worker)
		talk.worker.Say(t, &ipc.Bye{})
		<-talk.session.Done()
		if len(replies) != 3 || replies[0] != nil || replies[1] != nil || !errors.Is(replies[2], ErrOver) {
			t.Errorf("got %v, want twice no error and then %v", replies, ErrOver)
		}
	})
}

func TestObserversOfTwoSessionsMayCallEachOthersSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var talks [2]talk
		replies := make(chan error, 2)
		for i := range talks {
			other := func(e Event) {
				if _, ok := e.(Reported); ok {
					replies <- talks[1-i].session.Stop(t.Context(), "enough")
				}
			}
			talks[i] = begin(t, func(c *Config) { c.Observer = ObserverFunc(other) })
			defer talks[i].hangUp()
		}
		for _, talk := range talks {
			talk.worker.Run(t)
		}
		for _, talk := range talks {
			talk.worker.Say(t, controllertest.Report(1, 1, 1))
		}
		for _, talk := range talks {
			controllertest.Hear[ipc.Stop](t, talk.worker)
			if err := <-replies; err != nil {
				t.Error(err)
			}
			talk.worker.Say(t, &ipc.Bye{})
			<-talk.session.Done()
		}
	})
}

func TestAnObserverThatIsBehindHoldsUpMessagesAndNothingElse(t *testing.T) {
	const reports = 3 * untold
	var want, got []uint64
	for i := range uint64(reports) {
		want = append(want, i)
	}
	observed(t, func(t *testing.T, talk talk, observe func(func(Event))) {
		goOn := make(chan struct{})
		observe(func(event Event) {
			if e, ok := event.(Reported); ok {
				<-goOn
				got = append(got, e.Report.Forwards)
			}
		})
		talk.worker.Run(t)
		go func() {
			for i := range uint64(reports) {
				_ = talk.worker.Send(controllertest.Report(1, i, 0))
			}
		}()
		synctest.Wait()
		if queue := len(talk.session.herald.queue); queue != untold {
			t.Errorf("%d events wait, want %d", queue, untold)
		}
		if err := talk.session.Stop(t.Context(), "enough"); err != nil {
			t.Error(err)
		}
		controllertest.Hear[ipc.Stop](t, talk.worker)
		close(goOn)
		synctest.Wait()
		talk.worker.Say(t, &ipc.Bye{})
		<-talk.session.Done()
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEveryEventNamesItsSession(t *testing.T) {
	for _, event := range []Event{
		Opened{Of: "s1"}, Planned{Of: "s1"}, Weighed{Of: "s1"}, Reported{Of: "s1"}, RanShort{Of: "s1"}, Finished{Of: "s1"},
		Refused{Of: "s1"}, Failure{Of: "s1"}, Ended{Of: "s1"},
	} {
		if event.Session() != "s1" {
			t.Errorf("%T is of session %q", event, event.Session())
		}
	}
	if session := (Listening{}).Session(); session != "" {
		t.Errorf("the controller's own event is of session %q", session)
	}
}
