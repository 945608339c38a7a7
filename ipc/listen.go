package ipc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ErrExhausted tells that the system lacks what a further connection takes, such as a file descriptor. It may have it later.
var ErrExhausted = errors.New("the system has no more to give")

// ErrTaken tells that another process listens on a path, or that something else is there.
var ErrTaken = errors.New("the socket is taken")

const (
	maxPath   = len(syscall.RawSockaddrUnix{}.Path) - 1 // bytes: 107 on Linux, 103 on macOS
	dialGrace = 5 * time.Second
)

// DefaultSocket is the path at which the user's own controller listens where nobody names another.
func DefaultSocket() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "optimem", "controller.sock"), nil
	}
	return filepath.Join(os.TempDir(), "optimem-"+strconv.Itoa(os.Getuid()), "controller.sock"), nil
}

// A Listener accepts connections from processes of the same user.
type Listener struct {
	listener *net.UnixListener
	path     string
	lock     *os.File // held while we listen: tells a live socket from a stale one, also in a race
}

// Listen makes a socket that only this user can reach. Its directory is made where it is missing, and refused where
// others can look into it. A socket that nobody listens on is replaced; one that is in use is ErrTaken.
func Listen(path string) (*Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("listen on %s: the path has %d bytes, a socket's may have %d: choose a shorter one", path, len(path), maxPath)
	}
	if err := privateDirectory(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	lock, err := lockBeside(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	listener, err := bind(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), unlock(lock))
	}
	return &Listener{listener: listener, path: path, lock: lock}, nil
}

// Clear removes what a listener that was killed has left at a path: its socket and its lock. Where somebody listens it is
// ErrTaken. The directory must be the user's alone.
func Clear(path string) error {
	if err := isPrivate(filepath.Dir(path)); err != nil {
		return fmt.Errorf("clear %s: %w", path, err)
	}
	lock, err := lockBeside(path)
	if err != nil {
		return fmt.Errorf("clear %s: %w", path, err)
	}
	if err := errors.Join(clear(path), unlock(lock)); err != nil {
		return fmt.Errorf("clear %s: %w", path, err)
	}
	return nil
}

// Accept waits for the next process of the same user; others are turned away. After Close it is ErrClosed. After ErrExhausted
// it may be called again: whoever dials meanwhile waits.
func (l *Listener) Accept() (*Conn, error) {
	for {
		conn, err := l.listener.AcceptUnix()
		switch {
		case errors.Is(err, syscall.ECONNABORTED): // gone before we looked
			continue
		case err != nil:
			return nil, exhausted(closed(err))
		}
		peer, err := peerOf(conn)
		if err == nil && peer.UID == os.Getuid() {
			return newConn(conn, peer, HelloFrame), nil
		}
		_ = conn.Close() // a stranger, or gone already
	}
}

// Close stops listening and removes the socket. Idempotent.
func (l *Listener) Close() error {
	err := l.listener.Close() // removes the socket too
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return errors.Join(err, unlock(l.lock))
}

// Dial connects to a listener of the same user.
func Dial(path string) (*Conn, error) {
	conn, err := dial(path)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	peer, err := peerOf(conn)
	if err == nil && peer.UID != os.Getuid() {
		err = fmt.Errorf("it belongs to user %d", peer.UID)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dial %s: %w", path, err), conn.Close())
	}
	return newConn(conn, peer, MaxFrame), nil
}

func dial(path string) (*net.UnixConn, error) {
	dialer := net.Dialer{Timeout: dialGrace}
	conn, err := dialer.DialContext(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// privateDirectory makes a directory or checks that it is the user's alone.
func privateDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return isPrivate(dir)
}

func isPrivate(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if owner := ownerOf(info); owner != os.Getuid() {
		return fmt.Errorf("its directory %s belongs to user %d: choose one of your own", dir, owner)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("its directory %s is open to others (mode %04o): run chmod 700 on it or choose another", dir, mode)
	}
	return nil
}

// bind makes the socket. The lock beside it is held, so what stands at the path is stale if it is a socket at all.
func bind(path string) (*net.UnixListener, error) {
	if err := clear(path); err != nil {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// clear removes a stale socket, if one stands at the path.
func clear(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%w: what stands there is no socket: move it or choose another path", ErrTaken)
	}
	return vacate(path)
}

// vacate removes a socket that nobody listens on. Only a refused connection proves that: a listener that is too busy to take
// one more gives another error.
func vacate(path string) error {
	conn, err := dial(path)
	switch {
	case err == nil:
		_ = conn.Close()
		return taken()
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return fmt.Errorf("%w: whether somebody listens there cannot be told: try again or choose another path: %w", ErrTaken, err)
}

func taken() error {
	return fmt.Errorf("%w: another process listens there: use that one, stop it, or choose another path", ErrTaken)
}

// exhausted turns every error of a system that is out of something into ErrExhausted.
func exhausted(err error) error {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, lack) {
			return fmt.Errorf("%w: %w", ErrExhausted, err)
		}
	}
	return err
}

// firstOf is the first error that is one.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
