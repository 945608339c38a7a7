package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/optimem/optimem/controller"
	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The test binary is also the program, where this is set, and a Python, where it is called like one.
const (
	programVariable = "OPTIMEM_TEST_PROGRAM"
	roleVariable    = "OPTIMEM_TEST_ROLE"  // what the Python does
	readyVariable   = "OPTIMEM_TEST_READY" // a pipe on which it says how far it is
)

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "-u":
		os.Exit(roles[os.Getenv(roleVariable)]())
	case os.Getenv(programVariable) != "":
		main()
	}
	goleak.VerifyTestMain(m)
}

// golden compares with a file, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: %s", path, diff)
	}
}

// said is what a command line came to.
type said struct {
	code     int
	out, err string
}

// call runs a command line in this process.
func call(t *testing.T, args ...string) said {
	t.Helper()
	var out, err screen
	code := execute(t.Context(), args, stdio{in: &bytes.Buffer{}, out: &out, err: &err})
	return said{code, out.text.String(), err.text.String()}
}

// A screen can be written to from everywhere at once, as a file can.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer // under mu
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// roles are what a Python can do.
var roles = map[string]func() int{
	"success": func() int { return work(controllertest.Outcome(5)) },
	"differs": func() int {
		outcome := controllertest.Outcome(5)
		outcome.Equal = equalNo
		return work(outcome)
	},
	"shows its arguments": func() int {
		fmt.Fprintf(os.Stderr, "%q\n", os.Args[1:])
		return 1
	},
	"refuses": func() int {
		say(&ipc.Failure{Code: ipc.CodeBadInput, Text: "no such model: resnet9000; torchvision has resnet101"})
		return 2
	},
	"breaks":              func() int { say(&ipc.Failure{Code: ipc.CodeInternal, Text: "a hook was lost"}); return 1 },
	"wants too little":    func() int { return workWith("1KiB", controllertest.Outcome(5)) },
	"refuses on stderr":   func() int { fmt.Fprintln(os.Stderr, "no such device: warp"); return 2 },
	"crashes":             func() int { fmt.Fprintln(os.Stderr, "boom"); return 1 },
	"has no optimem":      func() int { fmt.Fprintln(os.Stderr, "python: No module named optimem_worker"); return 1 },
	"ends before it says": func() int { return 0 },
	"tells no outcome":    func() int { return work(nil) },
	"is killed": func() int {
		w := running("50%")
		_ = w.Send(controllertest.Report(1, 3, 1))
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	},
	"hangs before hello": func() int { ready("ready"); select {} },
	"hangs while it runs": func() int {
		signal.Ignore(syscall.SIGTERM)
		w := running("50%")
		ready("ready")
		for {
			message, err := w.Receive()
			if err != nil {
				select {}
			}
			if _, ok := message.(*ipc.Stop); ok {
				ready("asked to stop")
			}
		}
	},
	"script with two models": func() int {
		fmt.Println("from the script")
		return max(work(nil), work(nil))
	},
	"script without a model": func() int { fmt.Println("from the script"); return 0 },
	"script that fails":      func() int { fmt.Fprintln(os.Stderr, "Traceback: boom"); return 5 },
}

func dial() *controllertest.Worker {
	w, err := controllertest.Dial(os.Getenv(controller.EnvSocket))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return w
}

// say dials and says one thing.
func say(message any) { _ = dial().Send(message) }

// ready says how far the worker is, and who it is.
func ready(text string) {
	pipe, err := os.OpenFile(os.Getenv(readyVariable), os.O_WRONLY, 0)
	if err != nil {
		os.Exit(1)
	}
	_, _ = fmt.Fprintln(pipe, os.Getpid(), text)
	_ = pipe.Close()
}

// running is a worker with a plan from a recording.
func running(vram string) *controllertest.Worker {
	w := dial()
	registered, recorded := controllertest.Registered(), controllertest.Recorded()
	registered.Wish.VRAM, recorded.Wish.VRAM = vram, vram
	_ = w.Send(controllertest.Hello())
	_ = w.Send(registered)
	for {
		message, err := w.Receive()
		if err != nil {
			os.Exit(1)
		}
		switch m := message.(type) {
		case *ipc.Refused:
			_ = w.Send(&ipc.Bye{Reason: "refused"})
			os.Exit(2)
		case *ipc.Plan:
			if m.Version == 1 {
				return w
			}
			_ = w.Send(recorded)
			_ = w.Send(controllertest.Measured())
		}
	}
}

// work runs a session to its end.
func work(outcome *ipc.Outcome) int { return workWith("50%", outcome) }

func workWith(vram string, outcome *ipc.Outcome) int {
	w := running(vram)
	for done := range uint64(5) {
		_ = w.Send(controllertest.Report(1, done+1, 12_000_000))
	}
	if outcome != nil {
		_ = w.Send(outcome)
	}
	_ = w.Send(&ipc.Bye{Reason: "done"})
	for { // until the controller has hung up
		if _, err := w.Receive(); err != nil {
			return 0
		}
	}
}
