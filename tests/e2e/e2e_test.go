// Package e2e drives the real optimemctl with real Python workers, as a user does.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// root is the repository's.
func root(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A run is one optimemctl that has ended.
type run struct {
	code           int
	stdout, stderr string
}

// place is a run's surroundings: a runtime directory of its own, in which nothing may be left behind.
type place struct {
	t       *testing.T
	runtime string
}

func newPlace(t *testing.T) place {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := place{t, dir}
	// A worker that is killed leaves its simulated card's state, until somebody looks at that card again.
	t.Cleanup(func() { _ = os.Remove(fmt.Sprintf("/dev/shm/simgpu-%d-%s", os.Getuid(), p.card())) })
	return p
}

// card is the name of a simulated card that no other test uses.
func (p place) card() string { return filepath.Base(p.runtime) }

// command is an optimemctl with args, in the repository's root.
func (p place) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(root(p.t), "bin", "optimemctl"), args...)
	cmd.Dir = root(p.t)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+p.runtime, "OMP_NUM_THREADS=1", "OPTIMEM_POISON=1",
		"SIMGPU_CARD="+p.card(), "SIMGPU_FILL_FREED=1", "SIMGPU_RACES=1", "OPTIMEM_CACHE=")
	return cmd
}

// run runs optimemctl to its end.
func (p place) run(args ...string) run {
	p.t.Helper()
	cmd := p.command(p.t.Context(), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return run{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// clean fails the test if anything of ours is left in the runtime directory.
func (p place) clean() {
	p.t.Helper()
	entries, err := os.ReadDir(p.runtime)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, entry := range entries {
		p.t.Errorf("left behind: %s", entry.Name())
	}
}

// result is what run --json prints.
type result struct {
	Model            string   `json:"model"`
	Mode             string   `json:"mode"`
	Device           string   `json:"device"`
	Simulated        bool     `json:"simulated"`
	WeightsBytes     int64    `json:"weights_bytes"`
	BudgetBytes      int64    `json:"budget_bytes"`
	Pages            int      `json:"pages"`
	ResidentPages    int      `json:"resident_pages"`
	StreamedPages    int      `json:"streamed_pages"`
	CPUPages         int      `json:"cpu_pages"`
	ResidentBytes    int64    `json:"resident_bytes"`
	ArenaBytes       int64    `json:"arena_bytes"`
	Forwards         int      `json:"forwards"`
	PeriodNS         *int64   `json:"period_ns"`
	PlainPeriodNS    *int64   `json:"plain_period_ns"`
	BoundNS          *int64   `json:"bound_ns"`
	ReserveBytes     int64    `json:"reserve_bytes"`
	H2DBytes         int64    `json:"h2d_bytes"`
	Misses           int64    `json:"misses"`
	DevicePeakBytes  int64    `json:"device_peak_bytes"`
	Equal            *bool    `json:"equal"`
	Notes            []string `json:"notes"`
	PlanVersion      int      `json:"plan_version"`
	PredictedNS      *int64   `json:"predicted_ns"`
	ActivationsBytes int64    `json:"activation_bytes"`
}

// json runs optimemctl with --json and wants one object and nothing else on stdout.
func (p place) json(args ...string) result {
	p.t.Helper()
	out := p.run(append(args, "--json")...)
	if out.code != 0 {
		p.t.Fatalf("exit code %d\nstdout: %s\nstderr: %s", out.code, out.stdout, out.stderr)
	}
	var got result
	decoder := json.NewDecoder(strings.NewReader(out.stdout))
	if err := decoder.Decode(&got); err != nil {
		p.t.Fatalf("%v in %q", err, out.stdout)
	}
	if decoder.More() {
		p.t.Fatalf("more than one object: %q", out.stdout)
	}
	return got
}

// net is a residual network that loads faster than any of torchvision's: a target, from the repository's root.
const net = "tests/e2e/testdata/net.py:make"

// photo is a photograph inside a Python package.
func photo(t *testing.T) string {
	t.Helper()
	const where = `import pathlib, sklearn.datasets as d; print(pathlib.Path(d.__file__).parent / "images" / "china.jpg", end="")`
	path, err := exec.CommandContext(t.Context(), python(t), "-c", where).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(path)
}

// python is the interpreter of the environment under test.
func python(t *testing.T) string {
	t.Helper()
	if named := os.Getenv("OPTIMEM_PYTHON"); named != "" {
		return named
	}
	return filepath.Join(root(t), ".venv", "bin", "python")
}

// fails checks exit code and words of a run that must not succeed, and that it left nothing behind.
func (p place) fails(code int, words []string, args ...string) {
	p.t.Helper()
	out := p.run(args...)
	if out.code != code {
		p.t.Errorf("exit code %d, not %d\nstdout: %s\nstderr: %s", out.code, code, out.stdout, out.stderr)
	}
	for _, word := range words {
		if !strings.Contains(out.stderr, word) {
			p.t.Errorf("%q is missing in %q", word, out.stderr)
		}
	}
	if strings.Contains(out.stderr, "Traceback") || strings.Contains(out.stderr, "goroutine ") {
		p.t.Errorf("a user does not want to see this: %s", out.stderr)
	}
	p.clean()
}

// alive tells whether a process runs that is no zombie.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

// eventually waits until what is asked holds.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", within, what)
		case <-tick.C:
		}
	}
}
