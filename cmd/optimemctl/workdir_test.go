package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
)

// leave makes a folder as a controller has it, and closes its socket as the end of the process would. It is as old as age.
func leave(t *testing.T, base string, age time.Duration, beside ...string) runtimeDir {
	t.Helper()
	d, err := makeRuntimeDir(base)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.socket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	socket.SetUnlinkOnClose(false)
	_ = socket.Close()
	for _, name := range append(beside, "s.lock") {
		if err := os.WriteFile(filepath.Join(d.path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	grow(t, d.path, age)
	return d
}

func grow(t *testing.T, path string, age time.Duration) {
	t.Helper()
	then := time.Now().Add(-age)
	if err := os.Chtimes(path, then, then); err != nil {
		t.Fatal(err)
	}
}

func TestWhatKilledControllersHaveLeftGoesAtTheNextStart(t *testing.T) {
	base := newPlace(t).runtime
	left := leave(t, base, time.Hour)
	empty := runtimeDir{filepath.Join(base, runtimePrefix+"empty")}
	if err := os.Mkdir(empty.path, 0o700); err != nil {
		t.Fatal(err)
	}
	grow(t, empty.path, time.Hour)
	young := leave(t, base, 0)
	shared := leave(t, base, time.Hour, "notes")
	other := filepath.Join(base, "optimem-mine")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	grow(t, other, time.Hour)
	alive, err := makeRuntimeDir(base)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := ipc.Listen(alive.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	grow(t, alive.path, time.Hour)
	if _, err := makeRuntimeDir(base); err != nil {
		t.Fatal(err)
	}
	for path, stays := range map[string]bool{
		left.path: false, empty.path: false, young.socket(): true, filepath.Join(shared.path, "notes"): true,
		shared.socket(): false, other: true, alive.socket(): true,
	} {
		if _, err := os.Lstat(path); (err == nil) != stays {
			t.Errorf("%s stays: %v, %v", path, err == nil, err)
		}
	}
}

func TestAFolderThatIsOpenToOthersIsLeftAlone(t *testing.T) {
	base := newPlace(t).runtime
	open := leave(t, base, time.Hour)
	if err := os.Chmod(open.path, 0o777); err != nil {
		t.Fatal(err)
	}
	tidy(base)
	if _, err := os.Lstat(open.socket()); err != nil {
		t.Error(err)
	}
}

func TestServePrivatelyMakesAFolderAndRemovesIt(t *testing.T) {
	base := newPlace(t).runtime
	t.Setenv("XDG_RUNTIME_DIR", base)
	stdin, parent := io.Pipe()
	stdout, out := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- execute(t.Context(), []string{"serve", "--private", "--until-eof"}, stdio{in: stdin, out: out, err: io.Discard})
		_ = out.Close()
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	socket := strings.TrimSuffix(strings.TrimPrefix(line, "listening on "), "\n")
	if err != nil || !strings.HasPrefix(socket, filepath.Join(base, runtimePrefix)) {
		t.Fatalf("%q: %v", line, err)
	}
	w, err := controllertest.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	w.Open(t)
	_ = parent.Close()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
	if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestServeAtASocketOrPrivately(t *testing.T) {
	if got := call(t, "serve", "--private", "--socket", "/s"); got.code != 2 || !strings.Contains(got.err, "private") {
		t.Errorf("%+v", got)
	}
}
