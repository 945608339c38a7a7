package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
)

func TestVersion(t *testing.T) {
	got := call(t, "version", "--json")
	var info versionInfo
	if err := json.Unmarshal([]byte(got.out), &info); err != nil || info.Protocol != ipc.Version || info.Version == "" {
		t.Errorf("%v in %+v", err, got)
	}
	if got := call(t, "version"); got.code != 0 || !strings.HasPrefix(got.out, "optimemctl ") {
		t.Errorf("%+v", got)
	}
}

func TestProbeOfThisMachine(t *testing.T) {
	got := call(t, "probe", "--json")
	var reading struct {
		Cards []any
		Host  struct {
			TotalBytes int64 `json:"total_bytes"`
		}
	}
	if err := json.Unmarshal([]byte(got.out), &reading); err != nil || reading.Cards == nil || reading.Host.TotalBytes <= 0 {
		t.Errorf("%v in %+v", err, got)
	}
}

func TestALibraryThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lib.so")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := call(t, "probe", "--nvml-library", path); got.code != 2 || !strings.Contains(got.err, path) {
		t.Errorf("%+v", got)
	}
}

func TestHelpTeaches(t *testing.T) {
	for _, command := range []string{"run", "plan", "report", "probe", "serve", "version"} {
		got := call(t, command, "--help")
		if got.code != 0 || !strings.Contains(got.out, "Examples:") {
			t.Errorf("%s: %+v", command, got)
		}
	}
	if got := call(t, "run", "--help"); !strings.Contains(got.out, "Exit codes:") {
		t.Error(got.out)
	}
	if got := call(t); got.code != 0 || !strings.Contains(got.out, "Usage:") {
		t.Errorf("%+v", got)
	}
}

func TestServeUntilEOF(t *testing.T) {
	socket := filepath.Join(newPlace(t).runtime, "s")
	stdin, parent := io.Pipe()
	stdout, out := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- execute(t.Context(), []string{"serve", "--socket", socket, "--until-eof"}, stdio{in: stdin, out: out, err: io.Discard})
		_ = out.Close()
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "listening on "+socket+"\n" {
		t.Fatalf("%q: %v", line, err)
	}
	w, err := controllertest.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	w.Run(t)
	_ = parent.Close()
	controllertest.Hear[ipc.Bye](t, w)
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestServeWhereItCannot(t *testing.T) {
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := call(t, "serve", "--socket", filepath.Join(folder, "s")); got.code != 2 || !strings.Contains(got.err, "chmod 700") {
		t.Errorf("%+v", got)
	}
}
