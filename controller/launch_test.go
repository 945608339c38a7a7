package controller

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
)

// The test binary is its own worker: this variable says which.
const roleVariable = "OPTIMEM_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(roles[role]())
	}
	goleak.VerifyTestMain(m)
}

// roles are what a child can be. Each says "ready" on stdout once it is what it should be.
var roles = map[string]func() int{
	"ends well": func() int { return 0 },
	"fails": func() int {
		for i := range 30 {
			fmt.Fprintf(os.Stderr, "line %d\n", i)
		}
		return 7
	},
	"shows its environment": func() int {
		fmt.Println(os.Getenv(EnvSocket), os.Getenv(EnvSpawned), os.Getenv("OF_MINE"))
		return 0
	},
	"waits": func() int {
		fmt.Println("ready")
		select {}
	},
	"does not hear SIGTERM": func() int {
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		select {}
	},
	"leaves a child behind": func() int {
		child := exec.CommandContext(context.Background(), os.Args[0])
		child.Env = append(os.Environ(), roleVariable+"=waits")
		child.Stderr = os.Stderr // holds the pipe
		if err := child.Start(); err != nil {
			return 1
		}
		fmt.Println(child.Process.Pid)
		return 9
	},
	"works until it is stopped": func() int { return work(func(w *controllertest.Worker) { _ = w.Send(&ipc.Bye{}) }) },
	"does not hear stop":        func() int { return work(func(*controllertest.Worker) { select {} }) },
}

// work runs a session to its plan, reports three forwards, and waits for a stop.
func work(onStop func(w *controllertest.Worker)) int {
	w, err := controllertest.Dial(os.Getenv(EnvSocket))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, message := range []any{
		controllertest.Hello(), controllertest.Registered(), controllertest.Recorded(), controllertest.Measured(),
	} {
		if err := w.Send(message); err != nil {
			return 1
		}
	}
	fmt.Fprintln(os.Stderr, "computing")
	for {
		message, err := w.Receive()
		if err != nil {
			return 1
		}
		switch m := message.(type) {
		case *ipc.Plan:
			if m.Version == 1 {
				_ = w.Send(controllertest.Report(1, 3, m.PeriodNS))
			}
		case *ipc.Stop:
			onStop(w)
			return 0
		}
	}
}

// play is a command that makes a child play a role.
func play(role string) Command {
	return Command{Python: os.Args[0], Env: []string{roleVariable + "=" + role}}
}

// spawn starts a child that says it is ready.
func spawn(t *testing.T, role string) (*Worker, string) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command := play(role)
	command.Stdout = write
	w, err := start(t.Context(), command, "/nowhere")
	_ = write.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Kill(); <-w.Done() })
	said, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatalf("wait until the child is ready: %v", err)
	}
	_ = read.Close()
	return w, strings.TrimSpace(said)
}

func TestAChildThatEndsWellHasNoError(t *testing.T) {
	w, err := start(t.Context(), play("ends well"), "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	<-w.Done()
	if w.Err() != nil {
		t.Error(w.Err())
	}
}

func TestAChildKnowsItsSocket(t *testing.T) {
	said := &strings.Builder{}
	command := play("shows its environment")
	command.Env = append(command.Env, "OF_MINE=yes", EnvSocket+"=/other")
	command.Stdout = said
	w, err := start(t.Context(), command, "/some/socket")
	if err != nil {
		t.Fatal(err)
	}
	<-w.Done()
	if got := strings.TrimSpace(said.String()); got != "/some/socket 1 yes" {
		t.Errorf("it saw %q", got)
	}
}

func TestTheLastLinesOfAChildThatFails(t *testing.T) {
	live := &strings.Builder{}
	command := play("fails")
	command.Stderr = live
	w, err := start(t.Context(), command, "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	<-w.Done()
	var exit *ExitError
	if !errors.As(w.Err(), &exit) {
		t.Fatal(w.Err())
	}
	if exit.Code != 7 || exit.Signal != 0 || len(exit.Lines) != tailLines || exit.Lines[tailLines-1] != "line 29" {
		t.Errorf("%+v", exit)
	}
	if !strings.HasPrefix(live.String(), "line 0\n") {
		t.Errorf("passed on %q", live)
	}
}

func TestAChildThatCannotStart(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "python")
	if _, err := start(t.Context(), Command{Python: missing}, "/nowhere"); err == nil || !strings.Contains(err.Error(), missing) {
		t.Error(err)
	}
}

func TestAKilledChildNamesTheSignal(t *testing.T) {
	w, _ := spawn(t, "waits")
	if err := syscall.Kill(w.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-w.Done()
	if text := fmt.Sprint(w.Err()); !strings.Contains(text, "was killed by signal 9 (killed)") || !strings.Contains(text, fmt.Sprint(w.PID())) {
		t.Error(text)
	}
}

func TestGrandchildrenGoWithAWorkerThatFails(t *testing.T) {
	w, said := spawn(t, "leaves a child behind")
	<-w.Done() // although the grandchild holds stderr
	var grandchild int
	if _, err := fmt.Sscan(said, &grandchild); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := syscall.Kill(grandchild, 0); errors.Is(err, syscall.ESRCH) || isZombie(grandchild) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("grandchild %d is still there", grandchild)
		}
	}
}

// isZombie tells of a process that has ended and whose new parent has not looked yet.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestStoppingARealChild(t *testing.T) {
	for role, want := range map[string]syscall.Signal{"waits": syscall.SIGTERM, "does not hear SIGTERM": syscall.SIGKILL} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			w, _ := spawn(t, role)
			if err := w.stop(func() bool { return false }); err != nil {
				t.Fatal(err)
			}
			var exit *ExitError
			if !errors.As(w.Err(), &exit) || exit.Signal != want {
				t.Errorf("%v, want signal %v", w.Err(), want)
			}
		})
	}
}

// obedient is a worker that ends when it gets a signal, or when it is asked, a little later.
type obedient struct {
	*Worker
	begun time.Time
	log   []string
	to    string
}

func newObedient(to string) *obedient {
	o := &obedient{Worker: &Worker{pid: 4242, done: make(chan struct{})}, begun: time.Now(), to: to}
	o.signal = func(s syscall.Signal) error { o.hear(s.String()); return nil }
	return o
}

func (o *obedient) hear(what string) {
	o.log = append(o.log, fmt.Sprintf("%s after %v", what, time.Since(o.begun)))
	if what == o.to {
		time.AfterFunc(100*time.Millisecond, func() { close(o.done) })
	}
}

func TestStopEscalates(t *testing.T) {
	for name, test := range map[string]struct {
		session bool
		to      string
		want    []string
		down    bool
	}{
		"asking is enough":        {true, "stop", []string{"stop after 0s"}, true},
		"asked in vain":           {true, "terminated", []string{"stop after 0s", "terminated after 2s"}, true},
		"deaf to SIGTERM":         {true, "killed", []string{"stop after 0s", "terminated after 2s", "killed after 4s"}, true},
		"SIGTERM without session": {false, "terminated", []string{"terminated after 0s"}, true},
		"SIGKILL without session": {false, "killed", []string{"terminated after 0s", "killed after 2s"}, true},
		"stuck in a driver":       {false, "nothing", []string{"terminated after 0s", "killed after 2s"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newObedient(test.to)
				err := o.stop(func() bool {
					if test.session {
						o.hear("stop")
					}
					return test.session
				})
				if diff := cmp.Diff(test.want, o.log); diff != "" {
					t.Error(diff)
				}
				if (err == nil) != test.down {
					t.Error(err)
				}
			})
		})
	}
}

func TestExitErrorTexts(t *testing.T) {
	for want, exit := range map[string]ExitError{
		"worker (pid 7) ended with exit code 1 before it opened a session; the last lines it wrote:\n  a\n  b": {
			PID: 7, Code: 1, Lines: []string{"a", "b"}},
		"worker (pid 7) ended with exit code 1 before its first forward was done": {PID: 7, Code: 1, Opened: true},
		"worker (pid 7) was killed by signal 11 (segmentation fault) after 1 forward": {
			PID: 7, Code: -1, Signal: 11, Opened: true, Forwards: 1},
		"worker (pid 7) was killed by signal 9 (killed) after 3 forwards; if nobody killed it, memory ran out: " +
			"the kernel's log (dmesg) says so": {PID: 7, Code: -1, Signal: 9, Opened: true, Forwards: 3},
	} {
		if got := exit.Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
