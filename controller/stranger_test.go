package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
)

// waits are what a listener returns one after the other, and when it was asked.
type waits struct {
	errs  []error
	asked []time.Duration
	began time.Time
}

func (w *waits) Accept() (*ipc.Conn, error) {
	w.asked = append(w.asked, time.Since(w.began))
	if len(w.errs) == 0 {
		return nil, ipc.ErrClosed
	}
	err := w.errs[0]
	w.errs = w.errs[1:]
	return nil, err
}

func lacking(times int) (errs []error) {
	for range times {
		errs = append(errs, fmt.Errorf("%w: too many open files", ipc.ErrExhausted))
	}
	return errs
}

func TestWithoutDescriptorsAcceptingIsTriedAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{Socket: "/nowhere/s"})
		if err != nil {
			t.Fatal(err)
		}
		w := &waits{errs: lacking(10), began: time.Now()}
		if err := c.accept(t.Context(), w); err != nil {
			t.Errorf("accept: %v", err)
		}
		var want []time.Duration
		for at, pause := time.Duration(0), leastPause; len(want) < 11; at, pause = at+pause, min(2*pause, mostPause) {
			want = append(want, at)
		}
		if diff := cmp.Diff(want, w.asked); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTheEndDoesNotWaitForDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{Socket: "/nowhere/s"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := &waits{errs: lacking(10), began: time.Now()}
		if err := c.accept(ctx, w); err != nil || time.Since(w.began) != 0 {
			t.Errorf("accept: %v after %v", err, time.Since(w.began))
		}
	})
}

func TestWhatElseGoesWrongAtAcceptEndsTheController(t *testing.T) {
	c, err := New(Config{Socket: "/nowhere/s"})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the socket is no socket")
	if err := c.accept(t.Context(), &waits{errs: []error{broken}}); !errors.Is(err, broken) {
		t.Errorf("accept: %v", err)
	}
}

// connect is a connection of somebody who has not said hello.
func connect(t *testing.T, s *serving) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestOfManyWhoSayNothingTheOldestGivesWay(t *testing.T) {
	s := serve(t, nil)
	oldest := dial(t, s)
	for range maxGreeting {
		connect(t, s)
	}
	if failure := controllertest.Hear[ipc.Failure](t, oldest); failure.Code != ipc.CodeBusy {
		t.Errorf("%+v", failure)
	}
	oldest.HearEnd(t)
	s.mu.Lock()
	waiting := len(s.greeting)
	s.mu.Unlock()
	if waiting > maxGreeting {
		t.Errorf("%d have not said hello", waiting)
	}
}

func TestASessionGivesWayToNobody(t *testing.T) {
	s := serve(t, nil)
	w := dial(t, s)
	w.Run(t)
	for range 3 * maxGreeting {
		connect(t, s)
	}
	late := dial(t, s)
	late.Run(t) // whoever says hello at once is served
	w.Say(t, controllertest.Report(1, 1, 1_000_000), &ipc.Bye{})
	w.HearEnd(t)
}

func TestWhoeverHasSaidHelloTakesNobodysPlace(t *testing.T) {
	s := serve(t, nil)
	slow := dial(t, s)
	for range 2 * maxGreeting {
		dial(t, s).Open(t)
	}
	slow.Open(t)
}

func TestAHelloThatCameInTimeCounts(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Open(t)
		close(talk.session.crowded) // as if both had happened at once
		talk.worker.Say(t, controllertest.Registered())
		controllertest.Hear[ipc.Plan](t, talk.worker)
		talk.worker.Say(t, &ipc.Bye{})
	})
}

func TestStrangersDoAGoodWorkerNoHarm(t *testing.T) {
	s := serve(t, nil)
	w := dial(t, s)
	w.Open(t)
	noise := rand.NewChaCha8([32]byte{7})
	for range 100 {
		stranger := connect(t, s)
		bytes := make([]byte, 64)
		_, _ = noise.Read(bytes)
		_, _ = stranger.Write(bytes) // it may have been hung up on
		connect(t, s)                // and one who says nothing
	}
	w.Say(t, controllertest.Registered())
	controllertest.Hear[ipc.Plan](t, w)
	w.Say(t, controllertest.Recorded(), controllertest.Measured())
	if plan := controllertest.Hear[ipc.Plan](t, w); plan.Version != 1 {
		t.Errorf("plan %d", plan.Version)
	}
	dial(t, s).Run(t)
}
