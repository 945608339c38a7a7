package e2e

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestBadInputIsNamedAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	noPhoto := write(t, "photo.jpg", "this is no photo")
	training := write(t, "training.py", `
import torch
class Stubborn(torch.nn.Sequential):
    def eval(self): return self
def make(): return Stubborn(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5)), torch.ones(1, 3)
`)
	placed := write(t, "placed.py", `
import torch, optimem
model = torch.nn.Linear(3, 3).eval()
import simgpu
optimem.page(model.to("simgpu"))
`)
	broken := write(t, "broken.py", "raise SystemError('this file is broken')")
	tests := map[string]struct {
		words []string
		args  []string
	}{
		"a model that torchvision does not have": {[]string{"resnet1001", "resnet101"}, []string{"torchvision:resnet1001"}},
		"a file that is not there":               {[]string{"nowhere.py"}, []string{"nowhere.py:make"}},
		"a factory that is not there":            {[]string{"nothing"}, []string{training + ":nothing"}},
		"a budget below the largest page":        {[]string{"7.second", "missing"}, []string{net, "--vram", "1MiB"}},
		"a model in training mode":               {[]string{"training mode"}, []string{training + ":make"}},
		"parameters that are not on the CPU":     {[]string{"must be on the CPU"}, []string{placed}},
		"a device that is not there":             {[]string{"nosuch"}, []string{net, "--device", "nosuch"}},
		"a card that is not there":               {[]string{"cuda"}, []string{net, "--device", "cuda"}},
		"a module that cannot be imported":       {[]string{"no_such_module"}, []string{net, "--import", "no_such_module"}},
		"a photo that is none":                   {[]string{"photo.jpg", "no photo"}, []string{"torchvision:resnet18", "--input", noPhoto}},
		"a photo that is not there":              {[]string{"gone.jpg"}, []string{"torchvision:resnet18", "--input", "gone.jpg"}},
		"a mode that is none":                    {[]string{"fast"}, []string{"torchvision:resnet18", "--mode", "fast"}},
		"a size that is none":                    {[]string{"512"}, []string{"torchvision:resnet18", "--size", "512"}},
		"a share that is none":                   {[]string{"-3%"}, []string{"torchvision:resnet18", "--vram", "-3%"}},
		"an interpreter that is not there":       {[]string{"/nowhere/python"}, []string{"torchvision:resnet18", "--python", "/nowhere/python"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newPlace(t).fails(2, test.words, append([]string{"run"}, test.args...)...)
		})
	}
	t.Run("a program that fails by itself", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		out := p.run("run", broken)
		if out.code != 1 || !strings.Contains(out.stderr, "this file is broken") {
			t.Errorf("exit code %d: %s", out.code, out.stderr)
		}
		p.clean()
	})
}

// A live run of a script that pages its model until it is told to stop.
type live struct {
	cmd    *exec.Cmd
	worker int // pid
	lines  *bufio.Reader
	stderr strings.Builder
	ended  chan struct{} // closed at the end
}

const endless = `
import os, sys, time, torch, optimem
torch.manual_seed(0)
model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(8)]).eval()
x = torch.ones(1, 256)
with torch.no_grad():
    plain = model(x)
    optimem.page(model, vram="50%")
    model(x)
    print("pid", os.getpid(), flush=True)
    end = time.monotonic() + float(sys.argv[1])
    same = True
    while time.monotonic() < end:
        same = same and torch.equal(model(x).cpu(), plain)
open(sys.argv[2], "w").write(f"same {same} controller {optimem.status(model).controller}")
`

// start starts the endless script for so many seconds and waits until it runs; at its end it writes to a file.
func start(p place, seconds int, finished string) *live {
	p.t.Helper()
	path := write(p.t, "endless.py", endless)
	l := &live{cmd: p.command(p.t.Context(), "run", path, "--", itoa(seconds), finished), ended: make(chan struct{})}
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	l.cmd.Stderr = &l.stderr
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	l.lines = bufio.NewReader(stdout)
	line, err := l.lines.ReadString('\n')
	if err != nil {
		_ = l.cmd.Wait()
		p.t.Fatalf("%v: %s", err, l.stderr.String())
	}
	if l.worker, err = strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "pid "))); err != nil {
		p.t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, l.lines); _ = l.cmd.Wait(); close(l.ended) }()
	return l
}

// end waits for the end and returns the exit code.
func (l *live) end(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-l.ended:
		return l.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("still running after %v", within)
		return -1
	}
}

func TestAKilledWorkerIsReportedWithinTwoSeconds(t *testing.T) {
	p := newPlace(t)
	l := start(p, 60, os.DevNull)
	killed := time.Now()
	if err := syscall.Kill(l.worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := l.end(t, 10*time.Second); code != 3 {
		t.Errorf("exit code %d, not 3", code)
	}
	if took := time.Since(killed); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if text := l.stderr.String(); !strings.Contains(text, "killed") || !strings.Contains(text, itoa(l.worker)) {
		t.Errorf("the error names neither signal nor process: %s", text)
	}
	p.clean()
}

func TestAWorkerWhoseControllerIsKilledFinishesItsForwards(t *testing.T) {
	p := newPlace(t)
	finished := filepath.Join(t.TempDir(), "finished")
	l := start(p, 4, finished)
	if err := syscall.Kill(l.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the worker ends", func() bool { return !alive(l.worker) })
	words, err := os.ReadFile(finished)
	if err != nil || !strings.HasPrefix(string(words), "same True controller lost: the controller is gone") {
		t.Errorf("%v: %q", err, words)
	}
}

func TestInterruptEndsBothProcessesAndRemovesTheSocket(t *testing.T) {
	p := newPlace(t)
	l := start(p, 60, os.DevNull)
	if err := syscall.Kill(l.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := l.end(t, 15*time.Second); code != 130 {
		t.Errorf("exit code %d, not 130: %s", code, l.stderr.String())
	}
	if alive(l.worker) {
		t.Errorf("worker %d lives on", l.worker)
	}
	p.clean()
}

func TestInterruptAtAnyMomentLeavesNothingBehind(t *testing.T) {
	for _, after := range []time.Duration{5, 50, 300, 1000, 2500, 4000} {
		t.Run((after * time.Millisecond).String(), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			cmd := p.command(t.Context(), "run", net, "--vram", "50%", "--forwards", "100000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(after*time.Millisecond, func() { _ = cmd.Process.Signal(os.Interrupt) })
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 130 && code != -1 {
				t.Errorf("exit code %d, not 130", code)
			}
			p.clean()
		})
	}
}

func TestASocketThatIsTakenIsNamed(t *testing.T) {
	p := newPlace(t)
	socket := filepath.Join(p.runtime, "s", "taken.sock")
	first := p.command(t.Context(), "serve", "--socket", socket)
	stdout, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	out := p.run("serve", "--socket", socket)
	if out.code != 2 || !strings.Contains(out.stderr, "taken.sock") {
		t.Errorf("exit code %d: %s", out.code, out.stderr)
	}
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is still there")
	}
}
