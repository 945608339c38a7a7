package controller

import (
	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
)

// An Observer follows the sessions of a controller. Observe is called by the goroutine that the event happened in, one
// call at a time for each session, and holds that session up until it returns.
type Observer interface {
	Observe(event Event)
}

// ObserverFunc makes an Observer of a function.
type ObserverFunc func(event Event)

// Observe calls the function.
func (f ObserverFunc) Observe(event Event) { f(event) }

// An Event is one of the types below.
type Event interface{ event() }

// Listening tells that workers can dial.
type Listening struct{ Path string }

// Opened begins a session.
type Opened struct {
	Session string
	PID     int  // of the process at the other end
	Spawned bool // the controller started it
	Hello   ipc.Hello
}

// Planned tells of a plan that was sent, and of what it was made from.
type Planned struct {
	Session  string
	Manifest ipc.Manifest // as the worker said it
	Plan     planner.Plan
	Basis    Basis
}

// A Basis is what the planner was given: whoever gives it the same gets the same plan, but for the version.
type Basis struct {
	Manifest planner.Manifest // with the times that were measured
	Machine  planner.Machine
	Options  planner.Options
}

// Weighed tells what the latest times say, whether or not they led to a plan.
type Weighed struct {
	Session string
	Budget  planner.Bytes
	Bound   planner.Nanoseconds // on the period of any plan within that budget
}

// Reported passes on a report.
type Reported struct {
	Session string
	Report  ipc.Report
}

// Finished passes on an outcome.
type Finished struct {
	Session string
	Outcome ipc.Outcome
}

// Refused tells that no plan can be made from a manifest. The session goes on under the plan before.
type Refused struct {
	Session string
	Code    string // one of ipc's codes
	Text    string
}

// RanShort passes on that a forward ran out of device memory.
type RanShort struct {
	Session string
	Short   ipc.Short
}

// Failure tells what went wrong in a session, in the words of the side that found it. Ended follows.
type Failure struct {
	Session  string
	Code     string // one of ipc's codes
	Text     string
	ByWorker bool // the worker said it
}

// Ended is the last event of a connection; Opened may be missing where it never came to a session.
type Ended struct {
	Session string
	State   State // Closed, Failed or Lost
	Err     error // why it was lost, else nil
}

func (Listening) event() {}
func (Opened) event()    {}
func (Planned) event()   {}
func (Weighed) event()   {}
func (Reported) event()  {}
func (Finished) event()  {}
func (Refused) event()   {}
func (RanShort) event()  {}
func (Failure) event()   {}
func (Ended) event()     {}
