package main

import (
	"bufio"
	"bytes"
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

// place is a folder with a model, a script, an input, and room for the runtime folder.
type place struct{ model, script, input, runtime string }

func newPlace(t *testing.T) place {
	t.Helper()
	folder := t.TempDir()
	p := place{
		model: filepath.Join(folder, "model.py"), script: filepath.Join(folder, "script.py"),
		input: filepath.Join(folder, "photo.jpg"),
	}
	for _, path := range []string{p.model, p.script, p.input} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if p.runtime, err = os.MkdirTemp("", "run"); err != nil { // short, as the path of a socket must be
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(p.runtime) })
	t.Setenv("XDG_RUNTIME_DIR", p.runtime)
	return p
}

// left tells what a run has left in the runtime folder.
func (p place) left(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(p.runtime)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// program is the path of the test binary, which plays Python too.
func program(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunEndings(t *testing.T) {
	for role, test := range map[string]struct {
		script bool
		code   int
		out    string // what stdout holds; nothing else where it is empty
		err    string
	}{
		"success":                {code: 0, out: "equal to the plain model, bit for bit", err: "times are simulated"},
		"differs":                {code: 4, out: "differs from the plain model", err: "differs from the plain model's"},
		"refuses":                {code: 2, err: "optimemctl: no such model: resnet9000; torchvision has resnet101\n"},
		"breaks":                 {code: 1, err: "a hook was lost (internal)"},
		"wants too little":       {code: 2, err: "optimemctl: "},
		"refuses on stderr":      {code: 2, err: "optimemctl: no such device: warp\n"},
		"crashes":                {code: 1, err: "ended with exit code 1 before it opened a session; the last lines it wrote:\n  boom"},
		"has no optimem":         {code: 2, err: "has no optimem: install it there"},
		"ends before it says":    {code: 1, err: "without opening a session"},
		"tells no outcome":       {code: 1, err: "after 5 forwards without telling an outcome"},
		"is killed":              {code: 3, err: "was killed by signal 9 (killed) after 3 forwards"},
		"script with two models": {script: true, code: 0, out: "from the script"},
		"script without a model": {script: true, code: 0, out: "nothing was paged"},
		"script that fails":      {script: true, code: 1, err: "ended with exit code 5"},
	} {
		t.Run(role, func(t *testing.T) {
			p := newPlace(t)
			t.Setenv(roleVariable, role)
			target := "torchvision:resnet101"
			if test.script {
				target = p.script
			}
			got := call(t, "run", target, "--python", program(t))
			if got.code != test.code {
				t.Errorf("exit code %d, want %d", got.code, test.code)
			}
			if !strings.Contains(got.out, test.out) || (test.out == "" && got.out != "") {
				t.Errorf("stdout %q, want %q", got.out, test.out)
			}
			if !strings.Contains(got.err, test.err) || strings.Count(got.err, "optimemctl: ") > 1 {
				t.Errorf("stderr %q, want %q once", got.err, test.err)
			}
			p.left(t)
		})
	}
}

func TestRunJSON(t *testing.T) {
	newPlace(t)
	t.Setenv(roleVariable, "success")
	got := call(t, "run", "torchvision:resnet101", "--python", program(t), "--json")
	var result map[string]any
	if err := json.Unmarshal([]byte(got.out), &result); err != nil {
		t.Fatalf("%v in %q", err, got.out)
	}
	for key, want := range map[string]any{
		"model": "torchvision:resnet101", "mode": "page", "device": "simgpu", "simulated": true, "equal": true, "forwards": 5.0,
		"period_ns": 12e6, "plain_period_ns": 8e6, "plan_version": 1.0, "unread_pages": 0.0, "misses": 0.0,
	} {
		if result[key] != want {
			t.Errorf("%s is %v, want %v", key, result[key], want)
		}
	}
}

func TestRunJSONOfAScript(t *testing.T) {
	p := newPlace(t)
	t.Setenv(roleVariable, "script with two models")
	got := call(t, "run", p.script, "--python", program(t), "--json")
	var result struct{ Sessions []result }
	if err := json.Unmarshal([]byte(got.out), &result); err != nil || len(result.Sessions) != 2 {
		t.Errorf("%v in %q", err, got.out)
	}
	if result.Sessions[0].Equal != nil || result.Sessions[0].PlainPeriodNS != nil {
		t.Errorf("what nobody found out is told: %+v", result.Sessions[0])
	}
	if !strings.Contains(got.err, "from the script") {
		t.Errorf("stderr %q", got.err)
	}
}

func TestRunJSONOfAFailureIsEmpty(t *testing.T) {
	newPlace(t)
	t.Setenv(roleVariable, "refuses")
	if got := call(t, "run", "torchvision:x", "--python", program(t), "--json"); got.out != "" || got.code != 2 {
		t.Errorf("%+v", got)
	}
}

func TestWhatAWorkerIsCalledWith(t *testing.T) {
	p := newPlace(t)
	t.Setenv(roleVariable, "shows its arguments")
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"a model": {
			[]string{"torchvision:vit_l_16", "--vram", "25%"},
			[]string{"--device", "auto", "--mode", "page", "--forwards", "5", "--seed", "0", "torchvision:vit_l_16"},
		},
		"everything": {
			[]string{p.model + ":nets.build", "--device", "cuda:1", "--import", "torch_xla", "--import", "mine", "--mode", "chunk",
				"--forwards", "9", "--seed", "3", "--input", p.input, "--size", "64x32", "--max-capacity", "1000", "--", "--big", "x"},
			[]string{"--device", "cuda:1", "--import", "torch_xla", "--import", "mine", "--mode", "chunk",
				"--forwards", "9", "--seed", "3", "--input", p.input, "--size", "64x32", p.model + ":nets.build", "--", "--big", "x"},
		},
		"a script": {
			[]string{p.script, "--device", "sim", "--vram", "1GiB", "--", "--mode", "mine"},
			[]string{"--device", "sim", p.script, "--", "--mode", "mine"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := call(t, append(append([]string{"run"}, "--python", program(t)), test.args...)...)
			want := fmt.Sprintf("%q", append([]string{"-u", "-m", "optimem_worker", "run"}, test.want...))
			if !strings.Contains(got.err, want) {
				t.Errorf("stderr %s\nwant %s", got.err, want)
			}
		})
	}
}

func TestWhatIsRefusedBeforeAnythingStarts(t *testing.T) {
	p := newPlace(t)
	good := "torchvision:resnet101"
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "no TARGET"},
		{[]string{good, "more"}, "go after --"},
		{[]string{"resnet101"}, "not of a known form"},
		{[]string{"torchvision:"}, "names no torchvision model"},
		{[]string{"torchvision:../x"}, "names no torchvision model"},
		{[]string{"missing.py"}, "missing.py"},
		{[]string{"missing.py:build"}, "missing.py"},
		{[]string{p.model + ":"}, "not the name of a function"},
		{[]string{p.model + ":a b"}, "not the name of a function"},
		{[]string{good, "--input", "missing.jpg"}, "missing.jpg"},
		{[]string{good, "--input", filepath.Dir(p.input)}, "is a folder"},
		{[]string{good, "--size", "512"}, "WIDTHxHEIGHT"},
		{[]string{good, "--size", "0x5"}, "from 1 to"},
		{[]string{good, "--size", "99999x5"}, "from 1 to"},
		{[]string{good, "--mode", "fast"}, "page, chunk or auto"},
		{[]string{good, "--vram", "lots"}, "--vram"},
		{[]string{good, "--vram", "-5GiB"}, "--vram"},
		{[]string{good, "--forwards", "1"}, "2 or more"},
		{[]string{good, "--mode", "auto", "--forwards", "2"}, "3 or more in auto mode"},
		{[]string{good, "--forwards", "x"}, "forwards"},
		{[]string{good, "--max-layer-size", "-2"}, "--max-layer-size"},
		{[]string{good, "--max-layer-size", "1GiB"}, "without a unit"},
		{[]string{good, "--max-capacity", "some"}, "--max-capacity"},
		{[]string{good, "--device", "cuda;rm"}, "--device"},
		{[]string{good, "--import", "a-b"}, "--import"},
		{[]string{good, "--seed", "-1"}, "0 or more"},
		{[]string{good, "--nvml-library", "./missing.so"}, "missing.so"},
		{[]string{good, "--python", "/no/such/python"}, "/no/such/python"},
		{[]string{good, "--warp"}, "unknown flag"},
		{[]string{p.script, "--mode", "page"}, "says nothing to a script"},
		{[]string{p.script, "--forwards", "5"}, "says nothing to a script"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			got := call(t, append([]string{"run"}, test.args...)...)
			if got.code != 2 || got.out != "" || !strings.Contains(got.err, test.want) {
				t.Errorf("%+v, want %q", got, test.want)
			}
			p.left(t)
		})
	}
}

func TestMisuseShowsTheWayToTheHelp(t *testing.T) {
	for want, args := range map[string][]string{
		"optimemctl run --help`":   {"run"},
		"optimemctl probe --help`": {"probe", "--warp"},
		"optimemctl --help`":       {"fly"},
	} {
		if got := call(t, args...); got.code != 2 || !strings.Contains(got.err, want) {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

// started is the program as a child of its own, to send signals to.
type started struct {
	*exec.Cmd
	out, err bytes.Buffer
	pipe     *os.File
	words    *bufio.Reader // of the worker, through the pipe
}

func startProgram(t *testing.T, role string, args ...string) *started {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ready")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0) // opens at once and never ends
	if err != nil {
		t.Fatal(err)
	}
	s := &started{Cmd: exec.CommandContext(t.Context(), program(t), args...), pipe: pipe, words: bufio.NewReader(pipe)}
	s.Env = append(os.Environ(), programVariable+"=1", roleVariable+"="+role, readyVariable+"="+path)
	s.Stdout, s.Stderr = &s.out, &s.err
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Process.Kill(); _ = pipe.Close() })
	return s
}

// hear waits for a word of the worker and returns its process.
func (s *started) hear(t *testing.T, want string) (pid int) {
	t.Helper()
	if err := s.pipe.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	line, err := s.words.ReadString('\n')
	if err != nil {
		t.Fatalf("%v; stderr %q", err, &s.err)
	}
	var text string
	if _, err := fmt.Sscan(line, &pid, &text); err != nil || !strings.Contains(line, want) {
		t.Fatalf("the worker said %q, want %q", line, want)
	}
	return pid
}

// code waits for the end.
func (s *started) code(t *testing.T) int {
	t.Helper()
	var exit *exec.ExitError
	if err := s.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return s.ProcessState.ExitCode()
}

func gone(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("worker %d is still there: %v", pid, err)
	}
}

func TestInterruptions(t *testing.T) {
	for _, test := range []struct {
		role   string
		signal syscall.Signal
		code   int
	}{
		{"hangs before hello", syscall.SIGINT, 130},
		{"hangs before hello", syscall.SIGTERM, 143},
		{"hangs before hello", syscall.SIGHUP, 129},
		{"hangs while it runs", syscall.SIGINT, 130},
	} {
		t.Run(fmt.Sprintf("%v while it %s", test.signal, test.role), func(t *testing.T) {
			p := newPlace(t)
			s := startProgram(t, test.role, "run", "torchvision:resnet101", "--json", "--python", program(t))
			pid := s.hear(t, "ready")
			_ = s.Process.Signal(test.signal)
			if test.role == "hangs while it runs" {
				s.hear(t, "asked to stop")
			}
			if code := s.code(t); code != test.code || s.out.Len() > 0 {
				t.Errorf("exit code %d, want %d; stdout %q, stderr %q", code, test.code, &s.out, &s.err)
			}
			gone(t, pid)
			p.left(t)
		})
	}
}

func TestASecondInterruptionKillsAtOnce(t *testing.T) {
	p := newPlace(t)
	s := startProgram(t, "hangs while it runs", "run", "torchvision:resnet101", "--verbose", "--python", program(t))
	pid := s.hear(t, "ready")
	_ = s.Process.Signal(syscall.SIGINT)
	s.hear(t, "asked to stop")
	_ = s.Process.Signal(syscall.SIGINT)
	if code := s.code(t); code != 130 {
		t.Errorf("exit code %d; stderr %q", code, &s.err)
	}
	gone(t, pid)
	p.left(t)
}
