package controller

import (
	"fmt"
	"strconv"

	"github.com/optimem/optimem/ipc"
)

// State is where a session stands in its conversation.
type State int

// The states. A session begins in Greeting; Closed, Failed and Lost have no way out.
const (
	Greeting    State = iota // connected; hello is awaited
	Welcomed                 // the manifest as registered is awaited
	Recording                // plan 0 is in force; the manifest as recorded is awaited
	Measuring                // the times of the recorded steps are awaited
	Running                  // a plan made from the recording is in force
	Remeasuring              // that plan is in force; the times of a newer recording are awaited
	Stopping                 // stop was sent; bye is awaited
	Closed                   // ended in good order
	Failed                   // one side said what went wrong
	Lost                     // the connection ended without bye
)

var stateNames = [...]string{"greeting", "welcomed", "recording", "measuring", "running", "remeasuring", "stopping", "closed", "failed", "lost"}

func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return "state " + strconv.Itoa(int(s))
	}
	return stateNames[s]
}

// Over tells that nothing more is said in the session.
func (s State) Over() bool { return s >= Closed }

// A step moves a session from one state to the next.
type step string

const (
	stepHello      step = "hello"
	stepRegistered step = "manifest as registered"
	stepRecorded   step = "manifest as recorded"
	stepMeasured   step = "measured"
	stepReport     step = "report"
	stepOutcome    step = "outcome"
	stepBye        step = "bye"
	stepShort      step = "short"
	stepPlanned    step = "planned"    // we send a plan
	stepRefused    step = "refused"    // we refuse a manifest
	stepFailure    step = "failure"    // of either side
	stepStop       step = "stop"       // we ask the worker to end
	stepLeave      step = "leave"      // we say bye
	stepDisconnect step = "disconnect" // the connection ended without bye
)

// stepHeard is the step that a worker's message takes.
func stepHeard(message any) (step, error) {
	switch m := message.(type) {
	case *ipc.Hello:
		return stepHello, nil
	case *ipc.Manifest:
		if m.Recorded {
			return stepRecorded, nil
		}
		return stepRegistered, nil
	case *ipc.Measured:
		return stepMeasured, nil
	case *ipc.Report:
		return stepReport, nil
	case *ipc.Short:
		return stepShort, nil
	case *ipc.Outcome:
		return stepOutcome, nil
	case *ipc.Failure:
		return stepFailure, nil
	case *ipc.Bye:
		return stepBye, nil
	}
	return "", fmt.Errorf("a worker does not send %T", message)
}

// stepSaid is the step that a message of ours takes; ok is false where it takes none.
func stepSaid(message any) (by step, ok bool) {
	switch message.(type) {
	case *ipc.Plan:
		return stepPlanned, true
	case *ipc.Refused:
		return stepRefused, true
	case *ipc.Stop:
		return stepStop, true
	case *ipc.Failure:
		return stepFailure, true
	case *ipc.Bye:
		return stepLeave, true
	}
	return "", false
}

// transitions is the whole conversation. Steps that are not listed are out of order.
var transitions = map[State]map[step]State{
	Greeting: {
		stepHello: Welcomed, stepFailure: Failed, stepLeave: Closed, stepDisconnect: Lost,
	},
	Welcomed: {
		stepRegistered: Welcomed, stepPlanned: Recording, stepRefused: Welcomed,
		stepOutcome: Welcomed, // on the CPU itself there is nothing to plan
		stepStop:    Stopping, stepBye: Closed, stepFailure: Failed, stepLeave: Closed, stepDisconnect: Lost,
	},
	Recording: {
		stepRecorded: Measuring, stepReport: Recording, stepShort: Recording,
		stepOutcome: Recording, // on the CPU nothing is recorded
		stepStop:    Stopping, stepBye: Closed, stepFailure: Failed, stepLeave: Closed, stepDisconnect: Lost,
	},
	Measuring: {
		stepMeasured: Measuring, stepPlanned: Running, stepRefused: Recording,
		stepReport: Measuring, stepShort: Measuring, stepOutcome: Measuring,
		stepStop: Stopping, stepBye: Closed, stepFailure: Failed, stepLeave: Closed, stepDisconnect: Lost,
	},
	Running: {
		stepMeasured: Running, stepPlanned: Running, stepRecorded: Remeasuring,
		stepReport: Running, stepShort: Running, stepOutcome: Running,
		stepStop: Stopping, stepBye: Closed, stepFailure: Failed, stepLeave: Closed, stepDisconnect: Lost,
	},
	Remeasuring: {
		stepMeasured: Remeasuring, stepPlanned: Running, stepRefused: Running,
		stepReport: Remeasuring, stepShort: Remeasuring, stepOutcome: Remeasuring,
		stepStop: Stopping, stepBye: Closed, stepFailure: Failed, stepLeave: Closed, stepDisconnect: Lost,
	},
	Stopping: { // what was already on its way when stop was sent
		stepRegistered: Stopping, stepRecorded: Stopping, stepMeasured: Stopping, stepReport: Stopping, stepShort: Stopping,
		stepOutcome: Stopping,
		stepStop:    Stopping, stepBye: Closed, stepFailure: Failed, stepLeave: Closed, stepDisconnect: Lost,
	},
}

// next is the state after a step; ok is false where the step is out of order.
func (s State) next(by step) (state State, ok bool) {
	state, ok = transitions[s][by]
	return state, ok
}
