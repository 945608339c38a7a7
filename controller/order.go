package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
)

// ErrOver tells that a session has ended.
var ErrOver = errors.New("the session is over")

// ErrOutOfOrder tells that a request makes no sense in a session's present state.
var ErrOutOfOrder = errors.New("out of order")

// Stop asks the worker to end its session after the forward that it is in.
func (s *Session) Stop(ctx context.Context, reason string) error {
	return s.ask(ctx, func(context.Context) error { return s.stop(reason) })
}

// SetBudget bounds the device bytes that the session takes, weights and everything else together; 0 lifts the bound. It may be
// called at any time. A plan in force that takes more is replaced by one for less, and the worker is asked to give the bytes
// back within a time, where 0 means as soon as possible. A larger budget leads to a new plan if that makes a difference.
// Before there is a plan from a recording, the budget holds for the plans to come.
//
// Where no plan can be made for the budget, nothing changes and the error says why: *search.TooSmallError for too little.
func (s *Session) SetBudget(ctx context.Context, size planner.Bytes, within time.Duration) error {
	return s.ask(ctx, func(ctx context.Context) error { return s.setBudget(ctx, size, within) })
}

// Shrink makes the worker give back size bytes of device memory within a time, and sets the budget to the rest. Errors are
// those of SetBudget.
func (s *Session) Shrink(ctx context.Context, size planner.Bytes, within time.Duration) error {
	return s.ask(ctx, func(ctx context.Context) error { return s.shrink(ctx, size, within) })
}

// ask has the session's goroutine carry out a request, and returns its error.
//
// When ctx is done it returns at once, with the error of ctx: while the session is busy, and while it carries the request out.
// A request that was not begun by then is dropped; one that was may still take effect, which its events tell.
func (s *Session) ask(ctx context.Context, do func(context.Context) error) error {
	reply := make(chan error, 1) // nobody may be there to read it
	order := func() { reply <- unlessDone(ctx, do) }
	select {
	case s.orders <- order:
	case <-s.over:
		return ErrOver
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unlessDone carries out a request that somebody still waits for.
func unlessDone(ctx context.Context, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return do(ctx)
}

// stop sends a stop, once.
func (s *Session) stop(reason string) error {
	if s.state == Stopping {
		return nil
	}
	if _, ok := s.state.next(stepStop); !ok {
		return fmt.Errorf("stop session %s: it is %v: %w", s.id, s.state, ErrOutOfOrder)
	}
	s.say(&ipc.Stop{Reason: reason})
	return nil
}

func (s *Session) setBudget(ctx context.Context, size planner.Bytes, within time.Duration) error {
	to, err := newBudget(size, within)
	if err != nil {
		return fmt.Errorf("set the budget of session %s: %w", s.id, err)
	}
	if s.state == Stopping {
		return fmt.Errorf("set the budget of session %s: it is %v: %w", s.id, s.state, ErrOutOfOrder)
	}
	if err := s.planning.setBudget(ctx, to, within); err != nil {
		return fmt.Errorf("set the budget of session %s to %v: %w", s.id, size, err)
	}
	return nil
}

// shrink sets the budget to what the plan in force takes, less size bytes.
func (s *Session) shrink(ctx context.Context, size planner.Bytes, within time.Duration) error {
	if s.state != Running {
		return fmt.Errorf("shrink session %s: it is %v: %w", s.id, s.state, ErrOutOfOrder)
	}
	takes := taken(s.planning.course.plan.Plan)
	if size <= 0 || size >= takes {
		return fmt.Errorf("shrink session %s: it cannot give back %d bytes: give more than 0, and less than the %v that its plan takes",
			s.id, int64(size), takes)
	}
	if err := s.setBudget(ctx, takes-size, within); err != nil {
		return fmt.Errorf("shrink session %s by %v: %w", s.id, size, err)
	}
	return nil
}
