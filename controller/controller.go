// Package controller owns sessions from hello to bye.
//
// Workers dial its Unix socket. The controller makes their plans from their messages and from a reading of the machine, and
// follows how the plans fare. It serves a worker that it spawned and one that dials by itself alike; only of the former can it
// say why the process ended. Every figure of a worker is checked before it is used.
//
// A Session is one worker's conversation: the connection, a State, and requests of others. A planning makes the session's plans
// and owns its courses: a course is one recording with its times. The table in replan.go says when a course gets another plan.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/probe"
)

// DefaultMaxSessions is the limit where Config names none.
const DefaultMaxSessions = 64

// maxGreeting is how many connections may be without a hello at the same time. A further one takes the place of the oldest, so
// that those who say nothing keep nobody out.
const maxGreeting = 16

// How long to wait where no connection can be accepted: at first, and at most.
const (
	leastPause = 5 * time.Millisecond
	mostPause  = time.Second
)

// ErrNotListening tells that Run is not serving, so that no worker could dial.
var ErrNotListening = errors.New("the controller is not listening")

// A Config configures a controller.
type Config struct {
	Socket      string       // path of the socket to listen on
	Logger      *slog.Logger // nil logs nothing
	Prober      probe.Prober // reads free memory; nil leaves that to the workers
	Overrides   Overrides
	Observer    Observer // nil: nobody follows
	Broker      Broker   // nil shares nothing: every session may have what is free
	MaxSessions int      // at the same time; 0 means DefaultMaxSessions
}

// Overrides win over the wishes of workers where they are not zero.
type Overrides struct {
	VRAM         planner.Share
	MaxLayerSize int64 // parameters
	MaxCapacity  planner.Capacity
}

// options are a worker's wishes under the overrides.
func (c Config) options(wish ipc.Wish) (planner.Options, error) {
	options, err := ipc.ToOptions(wish)
	if err != nil {
		return planner.Options{}, err
	}
	if c.Overrides.VRAM != (planner.Share{}) {
		options.VRAM = c.Overrides.VRAM
	}
	if c.Overrides.MaxLayerSize != 0 {
		options.MaxLayerSize = c.Overrides.MaxLayerSize
	}
	if c.Overrides.MaxCapacity != (planner.Capacity{}) {
		options.MaxCapacity = c.Overrides.MaxCapacity
	}
	return options, nil
}

// A Controller listens for workers and holds their sessions.
type Controller struct {
	config Config
	tasks  sync.WaitGroup // every goroutine of ours

	mu        sync.Mutex
	listening bool                // under mu
	accepted  int                 // under mu: connections so far, for their names
	greeting  []*Session          // under mu: those before hello, the oldest first
	sessions  map[string]*Session // under mu: those past hello
	workers   map[int]*Worker     // under mu: running ones by process group
}

// New checks the configuration and fills in defaults.
func New(config Config) (*Controller, error) {
	switch {
	case config.Socket == "":
		return nil, errors.New("a controller needs the path of a socket to listen on")
	case config.MaxSessions < 0:
		return nil, fmt.Errorf("a controller cannot hold at most %d sessions", config.MaxSessions)
	case config.MaxSessions == 0:
		config.MaxSessions = DefaultMaxSessions
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Prober == nil {
		config.Prober = probe.Fixed(probe.Reading{})
	}
	if config.Observer == nil {
		config.Observer = ObserverFunc(func(Event) {})
	}
	if config.Broker == nil {
		config.Broker = Unshared{}
	}
	return &Controller{config: config, sessions: map[string]*Session{}, workers: map[int]*Worker{}}, nil
}

// Run listens and serves until ctx is done. Then it stops the workers that it spawned, says bye to the others, and returns
// when everything is down and every event was observed.
func (c *Controller) Run(ctx context.Context) error {
	listener, err := ipc.Listen(c.config.Socket)
	if err != nil {
		return err
	}
	talking, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	broken := make(chan error, 1)
	c.setListening(true)
	c.tasks.Go(func() { broken <- c.accept(talking, listener) })
	c.config.Logger.Info("listening", "socket", c.config.Socket)
	c.config.Observer.Observe(Listening{Path: c.config.Socket})
	select {
	case <-ctx.Done():
	case err = <-broken:
	}
	c.setListening(false)
	err = errors.Join(err, listener.Close(), c.stopWorkers())
	hangUp()
	c.tasks.Wait()
	return err
}

func (c *Controller) setListening(listening bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listening = listening
}

// A listener is the part of an *ipc.Listener that accepting needs.
type listener interface{ Accept() (*ipc.Conn, error) }

// accept takes connections until the listener is closed. Where the system lacks what one takes it waits and tries again.
func (c *Controller) accept(ctx context.Context, listener listener) error {
	pause := leastPause
	for {
		conn, err := listener.Accept()
		switch {
		case errors.Is(err, ipc.ErrClosed):
			return nil
		case errors.Is(err, ipc.ErrExhausted):
			c.config.Logger.Warn("no worker can be accepted for now", "again_in", pause, "error", err)
			pause = rest(ctx, pause)
			continue
		case err != nil:
			return fmt.Errorf("accept a worker: %w", err)
		}
		pause = leastPause
		s := c.attach(conn, conn.Peer().PID)
		c.tasks.Go(func() {
			defer c.forget(s)
			s.run(ctx)
		})
	}
}

// rest waits for a while, but not beyond ctx, and returns how long to wait the next time.
func rest(ctx context.Context, pause time.Duration) time.Duration {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return min(2*pause, mostPause)
}

// attach makes a session of a connection, and ties it to the worker that we started, if the process is part of one.
func (c *Controller) attach(conn conn, pid int) *Session {
	group, err := syscall.Getpgid(pid)
	if err != nil {
		group = pid
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accepted++
	id := fmt.Sprintf("s%d", c.accepted)
	s := newSession(id, pid, c.workers[group], conn, c.config)
	s.admit = func() error { return c.admit(s) }
	if len(c.greeting) == maxGreeting {
		close(c.greeting[0].crowded)
		c.greeting = c.greeting[1:]
	}
	c.greeting = append(c.greeting, s)
	return s
}

// admit takes a session in unless there are too many.
func (c *Controller) admit(s *Session) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sessions) >= c.config.MaxSessions {
		return fmt.Errorf("this controller already holds %d sessions, which is its limit", c.config.MaxSessions)
	}
	c.sessions[s.id] = s
	c.greeted(s)
	return nil
}

// greeted takes a session off those before hello. Callers hold mu.
func (c *Controller) greeted(s *Session) {
	c.greeting = slices.DeleteFunc(c.greeting, func(each *Session) bool { return each == s })
}

func (c *Controller) forget(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, s.id)
	c.greeted(s)
}

// Session returns an open session by its id.
func (c *Controller) Session(id string) (*Session, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.sessions[id]
	return s, ok
}

// Spawn starts a worker that will dial this controller. When ctx is done, or Run ends, the worker is stopped.
func (c *Controller) Spawn(ctx context.Context, command Command) (*Worker, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.listening {
		return nil, ErrNotListening
	}
	w, err := start(ctx, command, c.config.Socket)
	if err != nil {
		return nil, err
	}
	c.workers[w.pid] = w
	c.config.Logger.Info("worker started", "pid", w.pid)
	c.tasks.Go(func() { c.tend(ctx, w) })
	return w, nil
}

// tend stops a worker when ctx is done, and forgets it when it has ended.
func (c *Controller) tend(ctx context.Context, w *Worker) {
	select {
	case <-w.done:
	case <-ctx.Done():
		_ = c.stopWorker(w)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.workers, w.pid)
}

// stopWorkers stops all workers that we started, at the same time.
func (c *Controller) stopWorkers() error {
	c.mu.Lock()
	workers := slices.Collect(maps.Values(c.workers))
	c.mu.Unlock()
	errs := make([]error, len(workers))
	var stopping sync.WaitGroup
	for i, w := range workers {
		stopping.Go(func() { errs[i] = c.stopWorker(w) })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

func (c *Controller) stopWorker(w *Worker) error {
	return w.stop(func() bool { return c.askToStop(w) })
}

// askToStop asks over every session of a worker; false where there is none.
func (c *Controller) askToStop(w *Worker) (asked bool) {
	ctx, cancel := context.WithTimeout(context.Background(), askGrace)
	defer cancel()
	for _, s := range c.sessionsOf(w) {
		asked = s.Stop(ctx, "the controller stops its workers") == nil || asked
	}
	return asked
}

func (c *Controller) sessionsOf(w *Worker) (found []*Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		if s.worker == w {
			found = append(found, s)
		}
	}
	return found
}
