package main

import (
	"fmt"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	codeDone      = 0
	codeFault     = 1   // a fault of optimem, or the worker's program failed
	codeBadInput  = 2   // the user's input
	codeDied      = 3   // the worker was killed
	codeDifferent = 4   // the result differs from the plain model's
	codeSignal    = 128 // plus the number of the signal that ended us
)

const exitCodes = `Exit codes:
  0    done
  1    a fault of optimem, or the program that it ran failed
  2    bad input: a flag, an argument, a file, a model, or a budget that cannot work
  3    the worker died: a signal killed it
  4    the result differs from the plain model's
  130  interrupted (Ctrl-C); 143 after SIGTERM, 129 after SIGHUP`

// An exit is an error that knows its exit code.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string { return e.err.Error() }
func (e *exit) Unwrap() error { return e.err }

func badInput(format string, args ...any) *exit {
	return &exit{codeBadInput, fmt.Errorf(format, args...)}
}

func fault(format string, args ...any) *exit {
	return &exit{codeFault, fmt.Errorf(format, args...)}
}

// misuse is bad input on the command line, with the way to the help that fits.
func misuse(root *cobra.Command, args []string, err error) *exit {
	path := root.Name()
	if found, _, findErr := root.Find(args); findErr == nil {
		path = found.CommandPath()
	}
	return badInput("%w\nsee `%s --help`", err, path)
}

// An interruption is a signal that asked us to end.
type interruption struct{ signal syscall.Signal }

func (i interruption) Error() string {
	if i.signal == syscall.SIGINT {
		return "interrupted"
	}
	return fmt.Sprintf("ended by signal %d (%v)", int(i.signal), i.signal)
}

func (i interruption) exit() *exit { return &exit{codeSignal + int(i.signal), i} }
