// Package controllertest is a worker without Python, for tests of what speaks to workers.
package controllertest

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/optimem/optimem/ipc"
)

// A Conn is the worker's end of a conversation.
type Conn interface {
	Send(message any) error
	Receive() (any, error)
	Close() error
}

// A Worker says what it is told to say.
type Worker struct{ Conn }

// Dial connects to a controller.
func Dial(socket string) (*Worker, error) {
	conn, err := ipc.Dial(socket)
	if err != nil {
		return nil, fmt.Errorf("dial the controller: %w", err)
	}
	return &Worker{conn}, nil
}

// Pipe connects a worker to the other end in memory. Time in a synctest bubble passes over it.
func Pipe() (*Worker, Conn) {
	toController, toWorker := make(chan any, 16), make(chan any, 16)
	hung := &hangUp{done: make(chan struct{})}
	return &Worker{&pipe{toWorker, toController, hung, patience}}, &pipe{toController, toWorker, hung, 0}
}

// patience is how long a worker in memory waits for a message before a test has gone wrong.
const patience = time.Minute

// hangUp is shared by both ends: where one closes, both are closed.
type hangUp struct {
	once sync.Once
	done chan struct{}
}

type pipe struct {
	in   <-chan any
	out  chan<- any
	hung *hangUp
	wait time.Duration // 0 is for ever
}

func (p *pipe) Send(message any) error {
	select {
	case <-p.hung.done:
		return ipc.ErrClosed
	default:
	}
	select {
	case p.out <- message:
		return nil
	case <-p.hung.done:
		return ipc.ErrClosed
	}
}

// Receive still gives what was sent before the end.
func (p *pipe) Receive() (any, error) {
	select {
	case message := <-p.in:
		return message, nil
	default:
	}
	var late <-chan time.Time
	if p.wait > 0 {
		late = time.After(p.wait)
	}
	select {
	case message := <-p.in:
		return message, nil
	case <-p.hung.done:
	case <-late:
		return nil, fmt.Errorf("nothing was said for %v", p.wait)
	}
	select {
	case message := <-p.in:
		return message, nil
	default:
		return nil, fmt.Errorf("%w: %w", ipc.ErrClosed, io.EOF)
	}
}

func (p *pipe) Close() error {
	p.hung.once.Do(func() { close(p.hung.done) })
	return nil
}

// Say sends messages.
func (w *Worker) Say(t testing.TB, messages ...any) {
	t.Helper()
	for _, message := range messages {
		if err := w.Send(message); err != nil {
			t.Fatalf("send %T: %v", message, err)
		}
	}
}

// Hear receives one message of a type.
func Hear[T any](t testing.TB, w *Worker) *T {
	t.Helper()
	message, err := w.Receive()
	if err != nil {
		t.Fatalf("wait for %T: %v", new(T), err)
	}
	heard, ok := message.(*T)
	if !ok {
		t.Fatalf("heard %#v, want %T", message, new(T))
	}
	return heard
}

// HearEnd waits for the end of the connection.
func (w *Worker) HearEnd(t testing.TB) {
	t.Helper()
	if message, err := w.Receive(); !errors.Is(err, ipc.ErrClosed) {
		t.Fatalf("heard %#v and %v, want the end", message, err)
	}
}

// Open says hello and hears the welcome.
func (w *Worker) Open(t testing.TB) *ipc.Welcome {
	t.Helper()
	w.Say(t, Hello())
	return Hear[ipc.Welcome](t, w)
}

// Run goes on to a plan from a recording and returns it.
func (w *Worker) Run(t testing.TB) *ipc.Plan {
	t.Helper()
	w.Open(t)
	w.Say(t, Registered())
	Hear[ipc.Plan](t, w)
	w.Say(t, Recorded(), Measured())
	return Hear[ipc.Plan](t, w)
}

// The figures of the model that the worker speaks of: Units weights of UnitBytes each, one used in each step.
const (
	Units     = 8
	UnitBytes = 4 << 20
	CardBytes = 1 << 30
	StepNS    = 1_000_000
)

// Hello is the hello of this process on a simulated card.
func Hello() *ipc.Hello {
	return &ipc.Hello{
		Protocol: ipc.Version, Python: "3.12.0", Torch: "2.9.0",
		Device: ipc.Device{
			Kind: "simgpu", UUID: "GPU-00000000-0000-0000-0000-000000000001", Name: "Simulated card",
			TotalBytes: CardBytes, FreeBytes: CardBytes, Simulated: true,
		},
	}
}

// Registered is the manifest before the first forward. The wish is half of the weights.
func Registered() *ipc.Manifest {
	manifest := &ipc.Manifest{
		Model: "tower", Wish: ipc.Wish{Mode: "page", VRAM: "50%"}, WeightsBytes: Units * UnitBytes,
		Units: make([]ipc.Unit, Units),
	}
	for i := range manifest.Units {
		path := fmt.Sprintf("layers.%d", i)
		manifest.Units[i] = ipc.Unit{
			Path: path, Kind: "Linear", Bytes: UnitBytes, Parameters: UnitBytes / 4, Readers: []string{path}, Uses: []ipc.Use{},
		}
	}
	return manifest
}

// Recorded is the manifest after the first forward.
func Recorded() *ipc.Manifest {
	manifest := Registered()
	manifest.Recorded, manifest.Calls, manifest.Steps = true, Units+1, Units
	for i := range manifest.Units {
		manifest.Units[i].Uses = []ipc.Use{{First: uint64(i), Last: uint64(i)}}
	}
	return manifest
}

// Measured are the times of the recorded steps.
func Measured() *ipc.Measured {
	measured := &ipc.Measured{
		StepComputeNS: make([]uint64, Units), StepCPUNS: []uint64{}, StepActivations: make([]uint64, Units), StepCrossings: []uint64{},
		LinkLatencyNS: 10_000, LinkBytesPerSecond: 12_000_000_000, FreeBytes: CardBytes,
	}
	for i := range measured.StepComputeNS {
		measured.StepComputeNS[i], measured.StepActivations[i] = StepNS, 1<<20
	}
	return measured
}

// Report is a report under a plan.
func Report(version, forwards, period uint64) *ipc.Report {
	return &ipc.Report{
		PlanVersion: version, Forwards: forwards, PeriodNS: period, StallNS: []uint64{},
		H2DBytes: forwards * Units * UnitBytes, DeviceBytes: Units * UnitBytes / 2, DevicePeakBytes: Units*UnitBytes/2 + 1<<20,
		ActivationBytes: 1 << 20, PinnedBytes: Units * UnitBytes,
	}
}

// Outcome is an outcome that found nothing wrong.
func Outcome(forwards uint64) *ipc.Outcome {
	return &ipc.Outcome{Forwards: forwards, PlainPeriodNS: Units * StepNS, Equal: "equal", Notes: []string{"all is well"}}
}
