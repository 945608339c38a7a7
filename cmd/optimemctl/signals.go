package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// keepBrokenPipes makes a write to a closed pipe an error instead of the end of the process, so that cleaning up happens.
func keepBrokenPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// A guard turns signals into the end of a context: the first one asks politely, the second one pulls the brake, and a
// third one ends the process as if nobody had listened.
type guard struct {
	signals chan os.Signal
	done    chan struct{}
	ended   sync.WaitGroup

	mu    sync.Mutex
	brake func() // under mu
}

// guarded returns a context that the first SIGINT, SIGTERM or SIGHUP ends, with an interruption as its cause.
func guarded(ctx context.Context) (context.Context, *guard) {
	ctx, cancel := context.WithCancelCause(ctx)
	g := &guard{signals: make(chan os.Signal, 4), done: make(chan struct{}), brake: func() {}}
	signal.Notify(g.signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	g.ended.Go(func() {
		defer cancel(nil)
		if g.next(func(s syscall.Signal) { cancel(interruption{s}) }) {
			g.next(func(syscall.Signal) { g.pull() })
		}
	})
	return ctx, g
}

// next waits for one signal; false where the guard was released instead.
func (g *guard) next(do func(syscall.Signal)) bool {
	select {
	case s := <-g.signals:
		number, _ := s.(syscall.Signal)
		do(number)
		return true
	case <-g.done:
		return false
	}
}

// onSecond sets what the second signal does.
func (g *guard) onSecond(brake func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.brake = brake
}

func (g *guard) pull() {
	signal.Stop(g.signals)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.brake()
}

// release gives the signals back.
func (g *guard) release() {
	signal.Stop(g.signals)
	close(g.done)
	g.ended.Wait()
}
