package controller

import "github.com/optimem/optimem/planner"

// A Broker shares the memory of cards among sessions. Unshared is the broker for a single worker.
//
// To change what a session has later, be it to make room for another one, a broker calls the session's SetBudget.
type Broker interface {
	// Lease returns how many device bytes a session may plan with, weights and everything else together. It is at most free,
	// the bytes that the session could have by itself. In both, 0 means that nobody knows.
	//
	// It is called on the session's goroutine whenever the session is about to plan, so it must not wait for any session.
	Lease(s *Session, free planner.Bytes, curve Curve) planner.Bytes
	// Release ends the lease of a session that is over.
	Release(s *Session)
}

// A Curve tells what a session's plan would give within each of some sizes, in device bytes for weights and everything else
// together; the Budget of each point is the size. Each size costs a search. A curve is good until Lease returns.
type Curve func(sizes ...planner.Bytes) ([]planner.Point, error)

// Unshared is a Broker that grants every session all that is free.
type Unshared struct{}

// Lease returns free.
func (Unshared) Lease(_ *Session, free planner.Bytes, _ Curve) planner.Bytes { return free }

// Release does nothing.
func (Unshared) Release(*Session) {}
