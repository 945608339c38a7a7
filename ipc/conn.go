package ipc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// SendGrace is how long a sender waits for a peer that does not read.
const SendGrace = 10 * time.Second

// ErrClosed tells that the other side, or we ourselves, have closed the connection.
var ErrClosed = errors.New("connection closed")

// A Peer is the process at the other end, as the kernel names it.
type Peer struct {
	UID, PID int
}

// A Conn carries messages. Several goroutines may send, one may receive.
type Conn struct {
	conn net.Conn
	peer Peer
	most atomic.Uint32 // bytes of a frame's body that is received

	sending sync.Mutex // held while a frame is written
}

// newConn is a connection on which frames of up to most bytes are received.
func newConn(conn net.Conn, peer Peer, most uint32) *Conn {
	c := &Conn{conn: conn, peer: peer}
	c.most.Store(most)
	return c
}

// Peer tells who is at the other end.
func (c *Conn) Peer() Peer { return c.peer }

// Send writes one message. It returns ErrClosed where the connection is gone. A peer that does not read for SendGrace leaves
// a frame half written; nothing can follow it, so Send closes the connection. With a Welcome the peer may send frames of full
// size.
func (c *Conn) Send(message any) error {
	frame, err := Encode(message)
	if err != nil {
		return err
	}
	if _, ok := message.(*Welcome); ok {
		c.most.Store(MaxFrame)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(SendGrace)); err != nil {
		return closed(err)
	}
	_, err = c.conn.Write(frame)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.Join(fmt.Errorf("send: the peer has not read for %v: %w", SendGrace, err), c.Close())
	}
	return closed(err)
}

// Receive waits for one message. It returns ErrClosed after Close or when the connection ends, and ErrMalformed for a frame
// that is not of the protocol.
func (c *Conn) Receive() (any, error) {
	body, err := readFrame(c.conn, c.most.Load)
	if err != nil {
		return nil, closed(err)
	}
	return Decode(body)
}

// Close ends the connection. Idempotent.
func (c *Conn) Close() error {
	if err := c.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close a connection: %w", err)
	}
	return nil
}

// closed turns every error of a dead socket into ErrClosed.
func closed(err error) error {
	for _, dead := range []error{
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, os.ErrClosed, syscall.EPIPE, syscall.ECONNRESET,
	} {
		if errors.Is(err, dead) {
			return fmt.Errorf("%w: %w", ErrClosed, err)
		}
	}
	return err
}
