package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/probe"
)

// A simulated is a simulated card that several processes share, and that optimemctl reads through its NVML face.
type simulated struct {
	t       *testing.T
	env     []string
	library string
	state   string // the file in which the processes share the card
}

func newSimulated(t *testing.T) *simulated {
	t.Helper()
	s := &simulated{t: t, env: append(os.Environ(), fmt.Sprintf("SIMGPU_CARD=e2e-%d", os.Getpid()),
		"SIMGPU_PROFILE=rtx3060", "SIMGPU_CAPACITY=", "SIMGPU_LINK=", "SIMGPU_FRAGMENTATION=", "OMP_NUM_THREADS=1")}
	s.library = strings.TrimSpace(s.simgpu("nvml"))
	var status struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal([]byte(s.simgpu("status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	s.state = status.State
	t.Cleanup(func() { _ = os.Remove(s.state) })
	return s
}

// simgpu runs the card's command, which lies beside the interpreter, and returns what it printed.
func (s *simulated) simgpu(args ...string) string {
	s.t.Helper()
	return s.output(exec.CommandContext(s.t.Context(), filepath.Join(filepath.Dir(python(s.t)), "simgpu"), args...))
}

func (s *simulated) output(cmd *exec.Cmd) string {
	s.t.Helper()
	var complaints strings.Builder
	cmd.Env, cmd.Stderr = append(s.env, "OPTIMEM_NVML_LIBRARY="+s.library), &complaints
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", cmd, err, complaints.String())
	}
	return string(out)
}

// card reads the card with the real go-nvml, in a process of its own, since one process can use but one NVML library.
func (s *simulated) card() probe.Card {
	s.t.Helper()
	var reading probe.Reading
	out := s.output(exec.CommandContext(s.t.Context(), filepath.Join(root(s.t), "bin", "optimemctl"), "probe", "--json"))
	if err := json.Unmarshal([]byte(out), &reading); err != nil {
		s.t.Fatal(err)
	}
	if len(reading.Cards) != 1 {
		s.t.Fatalf("%d cards, want 1: %s", len(reading.Cards), out)
	}
	return reading.Cards[0]
}

// A holder is a Python process with a tensor on the card.
type holder struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

const holding = `import sys, torch, simgpu
kept = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device="simgpu")
print("holds", flush=True)
sys.stdin.read()`

func (s *simulated) hold(bytes planner.Bytes) *holder {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), python(s.t), "-c", holding, fmt.Sprint(int64(bytes)))
	cmd.Env, cmd.Stderr = s.env, os.Stderr
	stdin, errIn := cmd.StdinPipe()
	stdout, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		s.t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "holds\n" {
		s.t.Fatalf("the holder of %v said %q: %v", bytes, line, errors.Join(err, cmd.Wait()))
	}
	return &holder{cmd, stdin}
}

func (h *holder) pid() int { return h.cmd.Process.Pid }

// kill ends it with SIGKILL.
func (h *holder) kill(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = h.cmd.Wait() // says that it was killed
}

// end lets it end by itself.
func (h *holder) end(t *testing.T) {
	t.Helper()
	if err := errors.Join(h.stdin.Close(), h.cmd.Wait()); err != nil {
		t.Fatal(err)
	}
}

// expect compares what processes hold and what is free.
func (s *simulated) expect(when string, free planner.Bytes, held map[int]planner.Bytes) probe.Card {
	s.t.Helper()
	card := s.card()
	if card.FreeBytes != free {
		s.t.Errorf("%s: %v free, want %v", when, card.FreeBytes, free)
	}
	if len(card.Processes) != len(held) {
		s.t.Errorf("%s: processes %v, want %v", when, card.Processes, held)
	}
	for pid, bytes := range held {
		if got := card.HeldBy(pid); got != bytes {
			s.t.Errorf("%s: process %d holds %v, want %v", when, pid, got, bytes)
		}
	}
	return card
}

func TestProcessesShareASimulatedCardThatNVMLShows(t *testing.T) {
	const (
		mib          = planner.Bytes(1) << 20
		all          = 12 * 1024 * mib
		large, small = 96 * mib, 64 * mib
		squeezed     = 3 * 1024 * mib
	)
	s := newSimulated(t)
	idle := s.expect("nobody is there", all, nil)
	if !strings.HasPrefix(idle.Name, "Simulated ") || idle.TotalBytes != all {
		t.Errorf("%q with %v, want a simulated card with %v", idle.Name, idle.TotalBytes, all)
	}

	one, two := s.hold(large), s.hold(small)
	both := map[int]planner.Bytes{one.pid(): large, two.pid(): small}
	used := s.expect("two are there", all-large-small, both)
	if used.UUID != idle.UUID {
		t.Errorf("the UUID changed from %s to %s", idle.UUID, used.UUID)
	}

	s.simgpu("squeeze", "3GiB")
	s.expect("a stranger came", all-large-small-squeezed, both)

	one.kill(t)
	s.expect("one was killed", all-small-squeezed, map[int]planner.Bytes{two.pid(): small})

	s.simgpu("link", "x4")
	if link := s.card().Link; link.Width != 4 || link.MaxWidth != 16 || link.Generation != 4 {
		t.Errorf("the link is %+v, want 4 lanes of 16", link)
	}
	s.simgpu("link", "reset")
	s.simgpu("release")
	if link := s.expect("the stranger left", all-small, map[int]planner.Bytes{two.pid(): small}).Link; link.Width != 16 {
		t.Errorf("the link is %+v, want 16 lanes", link)
	}

	two.end(t)
	s.expect("all left", all, nil)
	eventually(t, time.Minute, "the card's file is gone", func() bool {
		_, err := os.Stat(s.state)
		return errors.Is(err, fs.ErrNotExist)
	})
}

func TestASimulatedCardsCommandSaysWhatIsWrong(t *testing.T) {
	s := newSimulated(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"squeeze", "3Gib3"}, "is not a size"},
		{[]string{"link", "x64"}, "it is at most PCIe 4 x16"},
		{[]string{"status", "--profile", "rtx9999"}, "known are"},
		{[]string{"status", "--card", "a/b"}, "cannot be a card's name"},
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(python(t)), "simgpu"), c.args...)
		cmd.Env = s.env
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), c.want) {
			t.Errorf("simgpu %v: %v, %q; want exit code 2 and %q", c.args, err, out, c.want)
		}
	}
}
