package controller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner/probe"
)

// A slowProber reads the machine once it is let go on, whatever the context.
type slowProber struct{ asked, goOn chan struct{} }

func (p slowProber) Probe(context.Context) (probe.Reading, error) {
	p.asked <- struct{}{}
	<-p.goOn
	return probe.Reading{}, nil
}

// busy is a session with a plan, and its prober; each reading of the machine waits for goOn.
func busy(t *testing.T, test func(t *testing.T, talk talk, prober slowProber)) {
	t.Helper()
	var prober slowProber
	within := func(c *Config) { // the bubble
		prober = slowProber{make(chan struct{}), make(chan struct{})}
		c.Prober = prober
	}
	converse(t, within, func(t *testing.T, talk talk) {
		go func() { // plan 0 and plan 1
			for range 2 {
				<-prober.asked
				prober.goOn <- struct{}{}
			}
		}()
		talk.worker.Run(t)
		test(t, talk, prober)
	})
}

func TestARequestWhoseContextIsDoneReturnsWhileItIsCarriedOut(t *testing.T) {
	busy(t, func(t *testing.T, talk talk, prober slowProber) {
		ctx, cancel := context.WithCancel(t.Context())
		replied := make(chan error, 1)
		go func() { replied <- talk.session.SetBudget(ctx, controllertest.Units*controllertest.UnitBytes/4, 0) }()
		<-prober.asked
		cancel()
		if err := <-replied; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		prober.goOn <- struct{}{}
		synctest.Wait()
		if p := talk.session.planning; p.plans != 2 || p.budget != 0 {
			t.Errorf("%d plans were sent, and the budget is %v: nobody waited for that", p.plans, p.budget)
		}
	})
}

func TestARequestWhoseContextIsDoneReturnsWhileTheSessionIsBusy(t *testing.T) {
	busy(t, func(t *testing.T, talk talk, prober slowProber) {
		first := make(chan error, 1)
		go func() {
			first <- talk.session.SetBudget(t.Context(), controllertest.Units*controllertest.UnitBytes/4, 0)
		}()
		<-prober.asked
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if err := talk.session.Stop(ctx, "enough"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		prober.goOn <- struct{}{}
		if err := <-first; err != nil {
			t.Error(err)
		}
		controllertest.Hear[ipc.Shrink](t, talk.worker)
		controllertest.Hear[ipc.Plan](t, talk.worker)
		synctest.Wait()
		if talk.session.state != Running {
			t.Errorf("it is %v, though nobody waits for it to stop", talk.session.state)
		}
	})
}

func TestARequestThatNobodyWaitsForIsDropped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := unlessDone(ctx, func(context.Context) error {
		t.Error("it was carried out")
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestARequestIsAnsweredWhileTheWorkerDoesNotRead(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		for range 20 { // more messages than the connection holds
			err = talk.session.Shrink(ctx, 1, 0)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
