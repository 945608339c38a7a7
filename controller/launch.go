package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// How long each step of stopping a worker may take before the next, harder one.
const (
	askGrace  = 2 * time.Second // from the stop message to SIGTERM
	termGrace = 2 * time.Second // from SIGTERM to SIGKILL
	killGrace = 5 * time.Second // from SIGKILL to giving up: a process stuck in a driver cannot be killed
	pipeGrace = time.Second     // grandchildren may hold the pipes of a worker that has ended
)

// Variables in the environment of a spawned worker.
const (
	EnvSocket  = "OPTIMEM_SOCKET"  // path of the controller's socket
	EnvSpawned = "OPTIMEM_SPAWNED" // "1" where the controller started the worker
)

// A Command says how a worker is started. No shell is involved.
type Command struct {
	Python string    // interpreter
	Args   []string  // of the interpreter
	Dir    string    // working directory; this process's own if empty
	Env    []string  // KEY=value, on top of this process's own
	Stdout io.Writer // nil discards
	Stderr io.Writer // where to pass stderr on, live; its last lines are kept in any case
}

// A Worker is a process that the controller started. It leads a process group of its own.
type Worker struct {
	pid    int
	tail   *tail
	signal func(syscall.Signal) error // to the whole group
	asked  atomic.Bool                // we want it to end
	done   chan struct{}
	err    error // why it ended; readable once done is closed
}

// start starts a worker that will dial the socket. The end of ctx does not end it: stop does that, step by step.
func start(ctx context.Context, command Command, socket string) (*Worker, error) {
	w := &Worker{tail: &tail{next: command.Stderr}, done: make(chan struct{})}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), command.Python, command.Args...)
	cmd.Dir = command.Dir
	cmd.Env = append(append(os.Environ(), command.Env...), EnvSocket+"="+socket, EnvSpawned+"=1")
	cmd.Stdout = command.Stdout
	cmd.Stderr = w.tail
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = pipeGrace
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the worker with %s: %w", command.Python, err)
	}
	w.pid = cmd.Process.Pid
	w.signal = func(s syscall.Signal) error { return syscall.Kill(-w.pid, s) }
	go w.wait(cmd)
	return w, nil
}

// wait reaps the process and, unless it ended well, kills the rest of its group.
func (w *Worker) wait(cmd *exec.Cmd) {
	err := cmd.Wait()
	w.err = exitError(cmd.ProcessState, err, w.tail.last())
	if w.err != nil || w.asked.Load() {
		_ = w.signal(syscall.SIGKILL)
	}
	close(w.done)
}

// PID is the worker's process id.
func (w *Worker) PID() int { return w.pid }

// Done is closed when the process has ended.
func (w *Worker) Done() <-chan struct{} { return w.done }

// Err tells why the process ended: nil while it runs and after exit code 0, else an *ExitError.
func (w *Worker) Err() error {
	select {
	case <-w.done:
		return w.err
	default:
		return nil
	}
}

// Kill ends the worker and its group at once.
func (w *Worker) Kill() {
	w.asked.Store(true)
	_ = w.signal(syscall.SIGKILL)
}

// stop ends the worker and returns when it is down. It calls ask, which asks over the worker's sessions and is false where
// there are none, then sends SIGTERM, then SIGKILL.
func (w *Worker) stop(ask func() bool) error {
	w.asked.Store(true)
	if ask() && w.ended(askGrace) {
		return nil
	}
	_ = w.signal(syscall.SIGTERM)
	if w.ended(termGrace) {
		return nil
	}
	_ = w.signal(syscall.SIGKILL)
	if w.ended(killGrace) {
		return nil
	}
	return fmt.Errorf("worker (pid %d) is still there %v after SIGKILL: a driver may hold it; look with `ps -o stat,wchan -p %d`",
		w.pid, killGrace, w.pid)
}

// ended waits for the end of the process, but not for longer than within.
func (w *Worker) ended(within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-w.done:
		return true
	case <-timer.C:
		return false
	}
}

// An ExitError tells how a worker's process ended when it did not end well.
type ExitError struct {
	PID      int
	Code     int            // exit code, -1 where a signal ended it
	Signal   syscall.Signal // 0 where it exited by itself
	Opened   bool           // it had opened a session
	Forwards uint64         // done in that session, as far as it told
	Lines    []string       // the last that it wrote to stderr
}

func (e *ExitError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "worker (pid %d) %s %s", e.PID, e.how(), e.when())
	if e.Signal == syscall.SIGKILL {
		text.WriteString("; if nobody killed it, memory ran out: the kernel's log (dmesg) says so")
	}
	if len(e.Lines) > 0 {
		text.WriteString("; the last lines it wrote:\n  " + strings.Join(e.Lines, "\n  "))
	}
	return text.String()
}

func (e *ExitError) how() string {
	if e.Signal != 0 {
		return fmt.Sprintf("was killed by signal %d (%v)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("ended with exit code %d", e.Code)
}

func (e *ExitError) when() string {
	switch {
	case !e.Opened:
		return "before it opened a session"
	case e.Forwards == 0:
		return "before its first forward was done"
	case e.Forwards == 1:
		return "after 1 forward"
	default:
		return fmt.Sprintf("after %d forwards", e.Forwards)
	}
}

// exitError is the one place that turns a process state into an error; nil for exit code 0.
func exitError(state *os.ProcessState, err error, lines []string) error {
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if state == nil {
		return fmt.Errorf("wait for the worker: %w", err)
	}
	exit := &ExitError{PID: state.Pid(), Code: state.ExitCode(), Lines: lines}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		exit.Signal = status.Signal()
	}
	return exit
}
