package controller

import (
	"slices"
	"testing"
)

var allStates = []State{Greeting, Welcomed, Recording, Measuring, Running, Remeasuring, Stopping, Closed, Failed, Lost}

var allSteps = []step{
	stepHello, stepRegistered, stepRecorded, stepMeasured, stepReport, stepShort, stepPlanned, stepRefused, stepOutcome, stepBye,
	stepFailure, stepStop, stepLeave, stepDisconnect,
}

func TestEveryOpenStateCanEndInEveryWay(t *testing.T) {
	for _, s := range allStates {
		for by, want := range map[step]State{stepLeave: Closed, stepDisconnect: Lost, stepFailure: Failed} {
			got, ok := s.next(by)
			if ok == s.Over() || (ok && got != want) {
				t.Errorf("%v by %s: %v %v, want %v unless it is over", s, by, got, ok, want)
			}
		}
	}
}

func TestASessionThatIsOverHasNoWayOut(t *testing.T) {
	for _, s := range []State{Closed, Failed, Lost} {
		if len(transitions[s]) != 0 {
			t.Errorf("%v leads on: %v", s, transitions[s])
		}
	}
}

func TestTheTableNamesOnlyKnownStatesAndSteps(t *testing.T) {
	for from, steps := range transitions {
		for by, to := range steps {
			if !slices.Contains(allStates, to) || !slices.Contains(allSteps, by) {
				t.Errorf("%v by %q to %v", from, by, to)
			}
		}
	}
}

func TestEveryStateHasAName(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range allStates {
		if seen[s.String()] {
			t.Errorf("two states are called %v", s)
		}
		seen[s.String()] = true
	}
	if got := State(99).String(); got != "state 99" {
		t.Errorf("an unknown state is called %q", got)
	}
}
