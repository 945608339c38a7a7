package ipc

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// asNobody runs do on a thread of its own that belongs to another user, and then ends the thread.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			t.Errorf("become user %d: %v", nobody, errno)
			return
		}
		do()
	}()
	<-done
}

// open lets everybody reach a socket, as nobody should.
func open(t *testing.T, path string) {
	t.Helper()
	for place, mode := range map[string]os.FileMode{path: 0o666, filepath.Dir(path): 0o755, filepath.Dir(filepath.Dir(path)): 0o755} {
		if err := os.Chmod(place, mode); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAStrangerIsTurnedAwayByBothEnds(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be another user")
	}
	path := socket(t)
	listener := listen(t, path)
	open(t, path)
	accepted := make(chan *Conn)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	asNobody(t, func() {
		if _, err := Dial(path); err == nil || !strings.Contains(err.Error(), "belongs to user 0") {
			t.Errorf("a stranger's controller was dialed: %v", err)
		}
		conn, err := dial(path)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a stranger was let in: %v", err)
		}
	})
	dialed, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dialed.Close() }()
	conn := <-accepted
	defer func() { _ = conn.Close() }()
	if conn.Peer().UID != 0 {
		t.Errorf("user %d was let in", conn.Peer().UID)
	}
}

func TestADirectoryOfAnotherUserIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	path := socket(t)
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.Chown(filepath.Dir(path), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("got %v", err)
	}
}

func TestAListenerTooBusyToAnswerIsNotRobbed(t *testing.T) {
	path := socket(t)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	busy, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(busy) }()
	if err := errors.Join(unix.Bind(busy, &unix.SockaddrUnix{Name: path}), unix.Listen(busy, 0)); err != nil {
		t.Fatal(err)
	}
	for err == nil { // until no more are taken
		var conn *net.UnixConn
		if conn, err = dial(path); err == nil {
			defer func() { _ = conn.Close() }()
		}
	}
	if _, err := Listen(path); !errors.Is(err, ErrTaken) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("its socket is gone: %v", err)
	}
}
