package controller

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/optimem/optimem/ipc"
)

// byeGrace is from the controller's end to hanging up on a worker that does not read.
const byeGrace = time.Second

// A conn is the part of an *ipc.Conn that a session needs.
type conn interface {
	Send(message any) error
	Receive() (any, error)
	Close() error
}

// A Session is one worker's conversation, from hello to bye: the connection, the state, and the requests of others.
type Session struct {
	id      string
	pid     int     // of the process at the other end
	worker  *Worker // nil where the worker dialed by itself
	conn    conn
	log     *slog.Logger
	admit   func() error  // asked at hello
	orders  chan func()   // requests of others
	crowded chan struct{} // closed when too many others wait to say hello
	over    chan struct{} // closed when no more requests are served
	done    chan struct{}

	// Owned by the goroutine of run.
	state    State
	opened   bool  // hello was good
	cause    error // why the connection was lost
	planning *planning
	herald   *herald
}

// newSession makes a session that run will hold.
func newSession(id string, pid int, worker *Worker, conn conn, config Config) *Session {
	s := &Session{
		id: id, pid: pid, worker: worker, conn: conn, log: config.Logger.With("session", id),
		orders: make(chan func()), crowded: make(chan struct{}), over: make(chan struct{}), done: make(chan struct{}),
	}
	s.planning = &planning{config: config, session: s, log: s.log, say: s.say, tell: s.tell}
	return s
}

// ID names the session.
func (s *Session) ID() string { return s.id }

// Done is closed when the session is over and its last event was observed.
func (s *Session) Done() <-chan struct{} { return s.done }

// run holds the conversation until it is over or ctx is done.
func (s *Session) run(ctx context.Context) {
	defer close(s.done)
	s.herald = newHerald(s.planning.config.Observer)
	defer s.herald.close()
	inbox := make(chan heard)
	go listen(s.conn, inbox)
	defer context.AfterFunc(ctx, func() { time.AfterFunc(byeGrace, s.hangUp) })()
	s.converse(ctx, inbox)
	close(s.over)
	s.hangUp()
	for range inbox { // until the listening goroutine has ended
	}
	s.conclude()
}

// converse takes messages and requests one at a time until the session is over.
func (s *Session) converse(ctx context.Context, inbox <-chan heard) {
	greeting := time.NewTimer(ipc.HelloGrace)
	defer greeting.Stop()
	for !s.state.Over() {
		observer, event := s.herald.next()
		select {
		case got := <-s.unlessFull(inbox):
			s.hear(ctx, got)
		case observer <- event:
			s.herald.passed()
		case order := <-s.orders:
			order()
		case <-greeting.C:
			s.missGreeting()
		case <-s.unlessGreeted():
			s.giveWay()
		case <-ctx.Done():
			s.say(&ipc.Bye{Reason: "the controller ends; the plan in force stays good"})
		}
	}
}

// unlessFull is the inbox while the observer keeps up, else nil.
func (s *Session) unlessFull(inbox <-chan heard) <-chan heard {
	if s.herald.full() {
		return nil
	}
	return inbox
}

// unlessGreeted is closed when the session must give way; nil once a hello has come.
func (s *Session) unlessGreeted() <-chan struct{} {
	if s.state != Greeting {
		return nil
	}
	return s.crowded
}

// heard is a message or the end of the connection.
type heard struct {
	message any
	err     error
}

// listen hands on what arrives until the connection ends.
func listen(c conn, inbox chan<- heard) {
	defer close(inbox)
	for {
		message, err := c.Receive()
		inbox <- heard{message, err}
		if err != nil {
			return
		}
	}
}

// say takes the step of a message of ours and sends it.
func (s *Session) say(message any) {
	if by, ok := stepSaid(message); ok {
		s.take(by)
	}
	s.send(message)
}

// send sends a message. A peer that is gone may have left words to read, so only the reading side ends a session then.
func (s *Session) send(message any) {
	err := s.conn.Send(message)
	if err == nil || errors.Is(err, ipc.ErrClosed) {
		return
	}
	s.cause = cmp.Or(s.cause, err)
	s.log.Warn("message not sent", "error", err)
	s.hangUp()
}

// hangUp closes the connection, again if need be.
func (s *Session) hangUp() { _ = s.conn.Close() }

func (s *Session) tell(event Event) { s.herald.tell(event) }
