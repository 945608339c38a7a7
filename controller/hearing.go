package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/optimem/optimem/ipc"
)

// planningGrace is from a worker's question to its going on without a plan.
const planningGrace = 60 * time.Second

// terms are the same for every worker.
var terms = ipc.Terms{
	PlanningNS: uint64(planningGrace), WritingNS: uint64(ipc.SendGrace), FrameBytes: ipc.MaxFrame, FrameValues: ipc.MaxValues,
	TimedForwards: patience,
}

func (s *Session) missGreeting() {
	if s.state == Greeting {
		s.fail(ipc.CodeProtocol, fmt.Sprintf("no hello came within %v of connecting", ipc.HelloGrace))
	}
}

func (s *Session) giveWay() {
	s.fail(ipc.CodeBusy, fmt.Sprintf("%d others connected after this one, and no hello came: say hello at once", maxGreeting))
}

// hear takes one message through the transition table.
func (s *Session) hear(ctx context.Context, got heard) {
	switch {
	case errors.Is(got.err, ipc.ErrClosed):
		s.take(stepDisconnect)
		s.cause = cmp.Or(s.cause, got.err)
		return
	case got.err != nil:
		s.fail(ipc.CodeProtocol, got.err.Error())
		return
	}
	by, err := stepHeard(got.message)
	if err != nil {
		s.fail(ipc.CodeProtocol, err.Error())
		return
	}
	stopping := s.state == Stopping
	if !s.take(by) {
		s.fail(ipc.CodeProtocol, fmt.Sprintf("%q is out of order while the session is %v", by, s.state))
		return
	}
	if err := s.act(ctx, got.message, stopping); err != nil {
		s.fail(ipc.CodeProtocol, err.Error())
	}
}

// take moves on in the transition table; false where the step is out of order.
func (s *Session) take(by step) bool {
	next, ok := s.state.next(by)
	if ok {
		s.state = next
	}
	return ok
}

// act does what a message in order calls for. While stopping only reports and outcomes still count. An error is a breach of
// the protocol.
func (s *Session) act(ctx context.Context, message any, stopping bool) error {
	switch m := message.(type) {
	case *ipc.Hello:
		s.greet(*m)
	case *ipc.Manifest:
		if !stopping {
			s.learn(ctx, *m)
		}
	case *ipc.Measured:
		if !stopping {
			return s.planning.weigh(ctx, *m)
		}
	case *ipc.Report:
		return s.follow(ctx, *m)
	case *ipc.Short:
		return s.runShort(*m)
	case *ipc.Outcome:
		return s.finish(*m)
	case *ipc.Failure:
		s.log.Warn("worker failed", "code", m.Code, "text", m.Text)
		s.tell(Failure{Of: Of(s.id), Code: m.Code, Text: m.Text, ByWorker: true})
	case *ipc.Bye:
		s.log.Info("worker said bye", "reason", m.Reason)
	}
	return nil
}

// greet answers a hello.
func (s *Session) greet(hello ipc.Hello) {
	if hello.Protocol != ipc.Version {
		s.fail(ipc.CodeProtocol, fmt.Sprintf("the worker speaks protocol %d, this optimem speaks %d: install the same version on both sides",
			hello.Protocol, ipc.Version))
		return
	}
	if !plausible(hello.Device.TotalBytes, hello.Device.FreeBytes) {
		s.fail(ipc.CodeProtocol, "the hello has a size that is out of range")
		return
	}
	if err := s.admit(); err != nil {
		s.fail(ipc.CodeBusy, err.Error())
		return
	}
	s.open(hello)
}

// open opens the session.
func (s *Session) open(hello ipc.Hello) {
	s.opened = true
	s.planning.card = card{device: hello.Device, pid: s.pid, prober: s.planning.config.Prober, log: s.log}
	s.log.Info("session opened", "pid", s.pid, "device", hello.Device.Kind, "torch", hello.Torch, "python", hello.Python)
	s.tell(Opened{Of: Of(s.id), PID: s.pid, Spawned: s.worker != nil, Hello: hello})
	s.say(&ipc.Welcome{Session: s.id, Terms: terms})
}

// learn takes a manifest.
func (s *Session) learn(ctx context.Context, manifest ipc.Manifest) {
	s.log.Info("manifest", "model", manifest.Model, "recorded", manifest.Recorded, "units", len(manifest.Units),
		"weights_bytes", manifest.WeightsBytes, "buffer_bytes", manifest.BufferBytes, "calls", manifest.Calls, "steps", manifest.Steps)
	if manifest.Recorded {
		s.planning.record(manifest)
	} else {
		s.planning.register(ctx, manifest)
	}
}

// follow takes a report.
func (s *Session) follow(ctx context.Context, report ipc.Report) error {
	if err := s.planning.hear(report); err != nil {
		return err
	}
	s.tell(Reported{Of: Of(s.id), Report: report})
	if s.state == Running {
		s.planning.reconsider(ctx)
	}
	return nil
}

// runShort takes note of a forward that ran out of device memory.
func (s *Session) runShort(short ipc.Short) error {
	if err := s.planning.runShort(short); err != nil {
		return err
	}
	s.log.Warn("worker ran out of device memory", "requested_bytes", short.RequestedBytes, "free_bytes", short.FreeBytes,
		"weights_bytes", short.WeightsBytes, "activation_bytes", short.ActivationBytes)
	s.tell(RanShort{Of: Of(s.id), Short: short})
	return nil
}

// finish takes an outcome.
func (s *Session) finish(outcome ipc.Outcome) error {
	if !plausible(outcome.Forwards, outcome.PlainPeriodNS) {
		return errors.New("an outcome has a figure that is out of range")
	}
	s.tell(Finished{Of: Of(s.id), Outcome: outcome})
	return nil
}

// fail ends the session by telling the worker what went wrong.
func (s *Session) fail(code, text string) {
	s.log.Warn("session failed", "code", code, "text", text)
	s.tell(Failure{Of: Of(s.id), Code: code, Text: text})
	s.say(&ipc.Failure{Code: code, Text: text})
}

// plausible tells whether every figure fits a signed integer.
func plausible(figures ...uint64) bool {
	return !slices.ContainsFunc(figures, func(n uint64) bool { return n > math.MaxInt64 })
}
