package controller

import (
	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
)

// An Observer follows the sessions of a controller. Each session tells its events in order, one at a time, on a goroutine that
// does nothing else.
//
// So an observer may call any session from within Observe, the event's own too: the session serves requests while an event is
// observed. From its Ended on a session answers ErrOver. An observer must not wait for a session's Done, nor for the end of
// Run, which wait for the observer. A session stops reading its worker's messages while many events are untold.
type Observer interface {
	Observe(event Event)
}

// ObserverFunc makes an Observer of a function.
type ObserverFunc func(event Event)

// Observe calls the function.
func (f ObserverFunc) Observe(event Event) { f(event) }

// An Event is one of the types below.
type Event interface {
	// Session names the session that the event is of; it is empty for an event of the controller itself.
	Session() string
	event()
}

// Of is part of every event of a session, and names that session.
type Of string

// Session names the session that the event is of.
func (o Of) Session() string { return string(o) }

func (Of) event() {}

// Listening tells that workers can dial.
type Listening struct{ Path string }

// Session is empty.
func (Listening) Session() string { return "" }

func (Listening) event() {}

// Opened begins a session.
type Opened struct {
	Of
	PID     int  // of the process at the other end
	Spawned bool // the controller started it
	Hello   ipc.Hello
}

// Planned tells of a plan that was sent, and of its basis.
type Planned struct {
	Of
	Manifest ipc.Manifest // as the worker sent it
	Plan     planner.Plan
	Basis    Basis
}

// Weighed tells the bound by the latest times, whether or not they led to a plan.
type Weighed struct {
	Of
	Budget planner.Bytes
	Bound  planner.Nanoseconds // on the period of any plan within that budget
}

// Reported passes on a report.
type Reported struct {
	Of
	Report ipc.Report
}

// RanShort passes on that a forward ran out of device memory.
type RanShort struct {
	Of
	Short ipc.Short
}

// Finished passes on an outcome.
type Finished struct {
	Of
	Outcome ipc.Outcome
}

// Refused tells that no plan can be made from a manifest. The session goes on under the plan before.
type Refused struct {
	Of
	Code string // one of ipc's codes
	Text string
}

// Failure tells what went wrong in a session, in the words of the side that found it. Ended follows.
type Failure struct {
	Of
	Code     string // one of ipc's codes
	Text     string
	ByWorker bool // the worker said it
}

// Ended is the last event of a connection. Opened may be missing, where the connection never became a session.
type Ended struct {
	Of
	State State // Closed, Failed or Lost
	Err   error // why it was lost, else nil
}
