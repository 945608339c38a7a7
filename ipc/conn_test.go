package ipc

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// socket is a path in a directory that is ours alone, short enough for a socket.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ipc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s", "controller.sock")
}

func listen(t *testing.T, path string) *Listener {
	t.Helper()
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// pair is both ends of a connection.
func pair(t *testing.T) (dialed, accepted *Conn) {
	t.Helper()
	path := socket(t)
	listener := listen(t, path)
	dialed, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	if accepted, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dialed.Close(); _ = accepted.Close() })
	return dialed, accepted
}

func TestBothEndsKnowEachOther(t *testing.T) {
	dialed, accepted := pair(t)
	want := Peer{UID: os.Getuid(), PID: os.Getpid()}
	if dialed.Peer() != want || accepted.Peer() != want {
		t.Errorf("got %v and %v, not %v", dialed.Peer(), accepted.Peer(), want)
	}
}

func TestMessagesOfManySendersArriveWhole(t *testing.T) {
	dialed, accepted := pair(t)
	const senders, each = 8, 50
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for range each {
				if err := dialed.Send(&Stop{Reason: strings.Repeat("x", 3000)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range senders * each {
		message, err := accepted.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if stop, ok := message.(*Stop); !ok || len(stop.Reason) != 3000 {
			t.Fatalf("got %T", message)
		}
	}
	sending.Wait()
}

func TestADeadConnectionIsErrClosedOnBothSides(t *testing.T) {
	dialed, accepted := pair(t)
	if err := accepted.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := dialed.Receive(); !errors.Is(err, ErrClosed) {
		t.Errorf("receive: %v", err)
	}
	if err := accepted.Send(&Bye{}); !errors.Is(err, ErrClosed) {
		t.Errorf("send after close: %v", err)
	}
	if err := dialed.Send(&Bye{}); err != nil && !errors.Is(err, ErrClosed) {
		t.Errorf("send: %v", err)
	}
	if err := accepted.Close(); err != nil {
		t.Errorf("close twice: %v", err)
	}
}

func TestAFrameThatIsCutOffIsAClosedConnection(t *testing.T) {
	dialed, accepted := pair(t)
	if _, err := dialed.conn.Write([]byte{0, 0, 0, 9, 0x92}); err != nil {
		t.Fatal(err)
	}
	_ = dialed.Close()
	if _, err := accepted.Receive(); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestAFrameAboveTheCapIsRefusedFromItsHeader(t *testing.T) {
	dialed, accepted := pair(t)
	if _, err := dialed.conn.Write(binary.BigEndian.AppendUint32(nil, MaxFrame+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := accepted.Receive(); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
	if err := dialed.Send(&Bye{Reason: strings.Repeat("x", MaxFrame)}); err == nil || !strings.Contains(err.Error(), "cap") {
		t.Errorf("sent: %v", err)
	}
}

func TestOnlyMessagesAreSent(t *testing.T) {
	dialed, _ := pair(t)
	for _, wrong := range []any{nil, "bye", Bye{}, (*Bye)(nil), &struct{}{}} {
		if err := dialed.Send(wrong); err == nil {
			t.Errorf("%T was sent", wrong)
		}
	}
}

func TestALiveSocketIsTaken(t *testing.T) {
	path := socket(t)
	listen(t, path)
	if _, err := Listen(path); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if _, err := Dial(path); err != nil {
		t.Errorf("the first listener is gone: %v", err)
	}
}

func TestASocketWithoutOurLockIsTakenToo(t *testing.T) {
	path := socket(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	other, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if _, err := Listen(path); !errors.Is(err, ErrTaken) {
		t.Errorf("got %v", err)
	}
}

func TestAStaleSocketIsReplaced(t *testing.T) {
	path := socket(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	listen(t, path)
}

func TestOnlyOneOfManyGetsAStaleSocket(t *testing.T) {
	path := socket(t)
	var mu sync.Mutex
	var won []*Listener
	var racing sync.WaitGroup
	for range 16 {
		racing.Go(func() {
			listener, err := Listen(path)
			if err != nil && !errors.Is(err, ErrTaken) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				won = append(won, listener)
				mu.Unlock()
			}
		})
	}
	racing.Wait()
	if len(won) != 1 {
		t.Fatalf("%d listen at the same path", len(won))
	}
	_ = won[0].Close()
}

func TestWhatIsNoSocketIsNeverRemoved(t *testing.T) {
	path := socket(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrTaken) {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestOfManyThatComeAndGoOnlyOneListensAtATime(t *testing.T) {
	path := socket(t)
	var listening atomic.Int64
	var coming sync.WaitGroup
	for range 16 {
		coming.Go(func() {
			for range 500 {
				listener, err := Listen(path)
				if errors.Is(err, ErrTaken) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if now := listening.Add(1); now > 1 {
					t.Errorf("%d listen at the same path", now)
				}
				runtime.Gosched()
				listening.Add(-1)
				if err := listener.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	coming.Wait()
}

func TestALockThatWasSweptAwayHoldsNobodyUp(t *testing.T) {
	path := socket(t)
	listener := listen(t, path)
	if err := os.Remove(path + ".lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrTaken) {
		t.Errorf("a live socket without its lock: %v", err)
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	listen(t, path)
}

func TestAPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		conn := newConn(near, Peer{}, MaxFrame)
		reading := make(chan error)
		go func() { // half a frame, and then no more
			_, err := io.ReadFull(far, make([]byte, 5))
			reading <- err
		}()
		began := time.Now()
		err := conn.Send(&Bye{Reason: "nobody will hear the end of this"})
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "has not read for 10s") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != SendGrace {
			t.Errorf("it took %v", took)
		}
		if err := <-reading; err != nil {
			t.Error(err)
		}
		if err := conn.Send(&Bye{}); !errors.Is(err, ErrClosed) {
			t.Errorf("what follows half a frame: %v", err)
		}
		if rest, err := io.ReadAll(far); len(rest) != 0 {
			t.Errorf("%x followed, %v", rest, err)
		}
	})
}

func TestCloseReleasesWhoReceives(t *testing.T) {
	dialed, _ := pair(t)
	released := make(chan error)
	go func() {
		_, err := dialed.Receive()
		released <- err
	}()
	if err := dialed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-released; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestTheDefaultSocketIsThatOfThePythonSide(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "default_socket.json"))
	if err != nil {
		t.Fatal(err)
	}
	var places []struct{ XDG_RUNTIME_DIR, TMPDIR, Path string }
	if err := json.Unmarshal(text, &places); err != nil {
		t.Fatal(err)
	}
	for _, place := range places {
		t.Setenv("XDG_RUNTIME_DIR", place.XDG_RUNTIME_DIR)
		t.Setenv("TMPDIR", place.TMPDIR)
		want := strings.ReplaceAll(place.Path, "UID", strconv.Itoa(os.Getuid()))
		if got, err := DefaultSocket(); got != want || err != nil {
			t.Errorf("got %s, %v, not %s", got, err, want)
		}
	}
}

func TestADirectoryThatOthersCanOpenIsRefused(t *testing.T) {
	path := socket(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("got %v", err)
	}
}

func TestAPathTooLongForASocketIsNamed(t *testing.T) {
	dir := filepath.Dir(socket(t))
	longest := filepath.Join(dir, strings.Repeat("x", maxPath-len(dir)-1))
	listen(t, longest)
	if _, err := Listen(longest + "x"); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("got %v", err)
	}
}

func TestCloseRemovesSocketAndLock(t *testing.T) {
	path := socket(t)
	listener := listen(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := errors.Join(listener.Close(), listener.Close()); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := listener.Accept(); !errors.Is(err, ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

func TestFramesAreSmallUntilTheWelcome(t *testing.T) {
	large := &Bye{Reason: strings.Repeat("x", HelloFrame)}
	dialed, accepted := pair(t)
	if err := dialed.Send(large); err != nil {
		t.Fatal(err)
	}
	if _, err := accepted.Receive(); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "the cap is 65536") {
		t.Errorf("before the welcome: %v", err)
	}
	dialed, accepted = pair(t)
	if err := accepted.Send(&Welcome{}); err != nil {
		t.Fatal(err)
	}
	if err := dialed.Send(large); err != nil {
		t.Fatal(err)
	}
	if message, err := accepted.Receive(); err != nil {
		t.Errorf("after the welcome: %T, %v", message, err)
	}
}
