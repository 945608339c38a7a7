package controller

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
)

// A watch is an observer that a test can wait on.
type watch struct{ events chan Event }

func newWatch() watch { return watch{make(chan Event, 1024)} }

func (w watch) Observe(event Event) { w.events <- event }

// until passes events by until one of a type comes.
func until[T Event](t *testing.T, w watch) T {
	t.Helper()
	for {
		event := <-w.events
		if e, ok := event.(T); ok {
			return e
		}
		if ended, ok := event.(Ended); ok {
			t.Fatalf("no %T came before %+v", *new(T), ended)
		}
	}
}

// serving is a controller that runs on a real socket.
type serving struct {
	*Controller
	watch  watch
	socket string
	hangUp context.CancelFunc
	ended  chan error
}

func serve(t *testing.T, change func(*Config)) *serving {
	t.Helper()
	folder, err := os.MkdirTemp("", "ctl") // shorter than t.TempDir(), as the path of a socket must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	s := &serving{watch: newWatch(), socket: filepath.Join(folder, "s"), ended: make(chan error, 1)}
	config := Config{Socket: s.socket, Observer: s.watch}
	if change != nil {
		change(&config)
	}
	if s.Controller, err = New(config); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, s.hangUp = context.WithCancel(t.Context())
	go func() { s.ended <- s.Run(ctx) }()
	until[Listening](t, s.watch)
	t.Cleanup(func() { s.hangUp(); s.end(t) })
	return s
}

// end waits for the end of Run and looks that nothing is left.
func (s *serving) end(t *testing.T) {
	t.Helper()
	err, open := <-s.ended
	if !open {
		return
	}
	close(s.ended)
	if err != nil {
		t.Errorf("run: %v", err)
	}
	if _, err := os.Stat(s.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func dial(t *testing.T, s *serving) *controllertest.Worker {
	t.Helper()
	w, err := controllertest.Dial(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func TestAWorkerThatDialsByItself(t *testing.T) {
	s := serve(t, nil)
	w := dial(t, s)
	w.Run(t)
	opened := until[Opened](t, s.watch)
	if opened.Spawned || opened.PID != os.Getpid() {
		t.Errorf("%+v", opened)
	}
	session, ok := s.Session(opened.Session())
	if !ok || session.ID() != opened.Session() {
		t.Errorf("session %q is not known", opened.Session())
	}
	if err := session.Shrink(t.Context(), controllertest.UnitBytes, 0); err != nil {
		t.Error(err)
	}
	w.Say(t, &ipc.Bye{})
	if ended := until[Ended](t, s.watch); ended.State != Closed {
		t.Errorf("%+v", ended)
	}
	<-session.Done()
}

func TestSessionsHaveNamesOfTheirOwn(t *testing.T) {
	s := serve(t, nil)
	first, second := dial(t, s).Open(t), dial(t, s).Open(t)
	if first.Session == second.Session {
		t.Errorf("both are %q", first.Session)
	}
}

func TestThereIsRoomAgainAfterASessionEnds(t *testing.T) {
	s := serve(t, func(c *Config) { c.MaxSessions = 1 })
	first := dial(t, s)
	first.Open(t)
	second := dial(t, s)
	second.Say(t, controllertest.Hello())
	if failure := controllertest.Hear[ipc.Failure](t, second); failure.Code != ipc.CodeBusy {
		t.Errorf("%+v", failure)
	}
	session, _ := s.Session("s1")
	first.Say(t, &ipc.Bye{})
	<-session.Done()
	for { // the slot is free a moment after the session is over
		third := dial(t, s)
		third.Say(t, controllertest.Hello())
		message, err := third.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := message.(*ipc.Welcome); ok {
			return
		}
	}
}

func TestBytesThatAreNoFrame(t *testing.T) {
	s := serve(t, nil)
	for _, bytes := range []string{"\x00\x00\x00\x02\xff\xff", "\xff\xff\xff\xff", "\x00\x00\x00\x07\x92\xa3bye\xdd\xff"} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(bytes)); err != nil {
			t.Fatal(err)
		}
		if failure := until[Failure](t, s.watch); failure.Code != ipc.CodeProtocol {
			t.Errorf("%q: %+v", bytes, failure)
		}
		until[Ended](t, s.watch)
		_ = conn.Close()
	}
	dial(t, s).Open(t) // it still serves
}

func TestTheEndOfTheControllerIsABye(t *testing.T) {
	s := serve(t, nil)
	w := dial(t, s)
	w.Run(t)
	s.hangUp()
	controllertest.Hear[ipc.Bye](t, w)
	w.HearEnd(t)
	s.end(t)
}

func TestASocketInUseIsRefused(t *testing.T) {
	s := serve(t, nil)
	second, err := New(Config{Socket: s.socket})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); !errors.Is(err, ipc.ErrTaken) {
		t.Errorf("run: %v", err)
	}
	dial(t, s).Open(t) // the first one still serves
}

func TestBadConfigurations(t *testing.T) {
	for name, config := range map[string]Config{
		"no socket":            {},
		"less than 0 sessions": {Socket: "/s", MaxSessions: -1},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(config); err == nil {
				t.Error("it was taken")
			}
		})
	}
}

func TestSpawningNeedsAListener(t *testing.T) {
	c, err := New(Config{Socket: "/nowhere/s"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Spawn(t.Context(), play("ends well")); !errors.Is(err, ErrNotListening) {
		t.Error(err)
	}
}

// spawned is a worker that has told of three forwards.
func spawned(t *testing.T, s *serving, role string) *Worker {
	t.Helper()
	w, err := s.Spawn(t.Context(), play(role))
	if err != nil {
		t.Fatal(err)
	}
	if opened := until[Opened](t, s.watch); !opened.Spawned || opened.PID != w.PID() {
		t.Errorf("%+v is not of worker %d", opened, w.PID())
	}
	until[Reported](t, s.watch)
	return w
}

func TestASpawnedWorkerStopsWhenAsked(t *testing.T) {
	s := serve(t, nil)
	w := spawned(t, s, "works until it is stopped")
	s.hangUp()
	<-w.Done()
	if ended := until[Ended](t, s.watch); ended.State != Closed || w.Err() != nil {
		t.Errorf("%+v, and the process: %v", ended, w.Err())
	}
}

func TestASpawnedWorkerThatIsKilled(t *testing.T) {
	s := serve(t, nil)
	w := spawned(t, s, "works until it is stopped")
	if err := syscall.Kill(w.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended := until[Ended](t, s.watch)
	var exit *ExitError
	if ended.State != Lost || !errors.As(ended.Err, &exit) {
		t.Fatalf("%+v", ended)
	}
	want := &ExitError{PID: w.PID(), Code: -1, Signal: syscall.SIGKILL, Opened: true, Forwards: 3, Lines: []string{"computing"}}
	if diff := cmp.Diff(want, exit); diff != "" {
		t.Error(diff)
	}
}

func TestASpawnedWorkerGoesWithItsContext(t *testing.T) {
	s := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	w, err := s.Spawn(ctx, play("waits"))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-w.Done()
	if text := w.Err().Error(); !strings.Contains(text, "signal 15") || !strings.Contains(text, "before it opened a session") {
		t.Error(text)
	}
}

func TestAWorkerThatDoesNotHearStopIsTerminated(t *testing.T) {
	s := serve(t, nil)
	w := spawned(t, s, "does not hear stop")
	s.hangUp()
	<-w.Done()
	var exit *ExitError
	if !errors.As(w.Err(), &exit) || exit.Signal != syscall.SIGTERM {
		t.Error(w.Err())
	}
}
