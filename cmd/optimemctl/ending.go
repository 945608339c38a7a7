package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/optimem/optimem/controller"
	"github.com/optimem/optimem/ipc"
)

// An ending is how a run ended: the worker's process and all that its sessions said.
type ending struct {
	worker  error // nil after exit code 0
	records []record
}

// judge finds the exit code, nil for a good end.
//
// What was said in words counts before the way in which the process ended. A script that ends well has dealt with the
// failures of its sessions itself.
func (e ending) judge(t target) *exit {
	if t.script && e.worker == nil {
		return e.judgeResults()
	}
	if code, text, ok := e.words(t); ok {
		return wordsExit(code, text)
	}
	if e.worker != nil {
		return e.judgeDeath(t)
	}
	if err := e.missing(); err != nil {
		return err
	}
	return e.judgeResults()
}

// words are the first in which a session said why it could not go on. In a script only bad input counts: everything else is
// the script's own affair.
func (e ending) words(t target) (code, text string, said bool) {
	for _, r := range e.records {
		if code, text, said = r.lastWords(); said && (!t.script || code == ipc.CodeBadInput) {
			return code, text, true
		}
	}
	return "", "", false
}

func wordsExit(code, text string) *exit {
	if code == ipc.CodeBadInput {
		return badInput("%s", clean(text))
	}
	return fault("%s (%s)", clean(text), clean(code))
}

// judgeDeath judges a worker that did not end well and did not say why in a message.
func (e ending) judgeDeath(t target) *exit {
	var death *controller.ExitError
	if !errors.As(e.worker, &death) {
		return fault("%w", e.worker)
	}
	death = e.witnessed(death)
	switch {
	case death.Signal != 0:
		return &exit{codeDied, death}
	case t.script:
		return fault("%s ended with exit code %d", t.text, death.Code)
	case death.Code == codeBadInput && len(death.Lines) > 0:
		return badInput("%s", strings.Join(death.Lines, "\n"))
	case death.Code == codeBadInput:
		return badInput("%w", death)
	case lacksOptimem(death):
		return badInput("%s; that Python has no optimem: install it there, or name another one with --python", death.Lines[len(death.Lines)-1])
	}
	return fault("%w", death)
}

// lacksOptimem tells whether Python did not even find the worker.
func lacksOptimem(death *controller.ExitError) bool {
	last := len(death.Lines) - 1
	return last >= 0 && strings.HasSuffix(death.Lines[last], "No module named optimem_worker")
}

// witnessed prefers the account of a session, which knows how far the worker came.
func (e ending) witnessed(death *controller.ExitError) *controller.ExitError {
	for _, r := range e.records {
		var told *controller.ExitError
		if errors.As(r.ended.Err, &told) && told.PID == death.PID {
			return told
		}
	}
	return death
}

// missing tells what a worker that ended with exit code 0 owes us.
func (e ending) missing() *exit {
	if len(e.records) == 0 {
		return fault("the worker ended without opening a session: is the optimem package of that Python this version's?")
	}
	for _, r := range e.records {
		switch {
		case r.finished:
		case r.ended.Err != nil:
			return fault("%w", r.ended.Err)
		default:
			return fault("the worker ended after %d forwards without telling an outcome", r.report.Forwards)
		}
	}
	return nil
}

func (e ending) judgeResults() *exit {
	for _, r := range e.records {
		if r.finished && r.outcome.Equal == equalNo {
			return &exit{codeDifferent, fmt.Errorf("the result of %s differs from the plain model's: do not use it, and report it as a fault of optimem",
				clean(r.manifest.Model))}
		}
	}
	return nil
}

func (e ending) results(request runRequest) []result {
	results := make([]result, 0, len(e.records))
	for _, r := range e.records {
		if r.opened.Session() != "" {
			results = append(results, newResult(r, request))
		}
	}
	return results
}
