package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

const (
	exitGrace     = 3 * time.Second  // from a lost connection to the end of a spawned worker's process
	byeGrace      = time.Second      // from the controller's end to hanging up on a worker that does not read
	planningGrace = 60 * time.Second // from a worker's question to its going on without a plan
)

// terms are what the controller tells every worker at its welcome.
var terms = ipc.Terms{
	PlanningNS: uint64(planningGrace), WritingNS: uint64(ipc.SendGrace), FrameBytes: ipc.MaxFrame, FrameValues: ipc.MaxValues,
	TimedForwards: patience,
}

// ErrOver tells that a session has ended.
var ErrOver = errors.New("the session is over")

// ErrOutOfOrder tells that a session is not where the request makes sense.
var ErrOutOfOrder = errors.New("not the time for it")

// A conn is what a session needs of an *ipc.Conn.
type conn interface {
	Send(message any) error
	Receive() (any, error)
	Close() error
}

// A Session is one worker's conversation, from hello to bye.
type Session struct {
	id     string
	pid    int     // of the process at the other end
	worker *Worker // nil where the worker dialed by itself
	conn   conn
	config Config
	log    *slog.Logger
	admit  func() bool // asked at hello
	orders chan order
	done   chan struct{}

	// Owned by the goroutine of run.
	state State
	hello ipc.Hello
	recording
	before    recording     // what a refusal goes back to
	compared  int           // version of the latest plan that was compared with others
	weighings uint64        // how many Measured have come
	plan      draft         // the latest that was sent
	sent      bool          // there is such a plan
	began     uint64        // forwards done when it was sent, as far as reported
	report    ipc.Report    // the latest
	limit     planner.Bytes // device bytes left after shrinking, 0 where nothing was asked back
	cause     error         // why the connection was lost
}

// A recording is a manifest, its times, and what was seen of the plans made from both.
type recording struct {
	manifest ipc.Manifest
	weighed  bool         // times of the manifest at hand have led to a plan
	measured ipc.Measured // the latest
	newer    bool         // measured is newer than the plan
	alone    ipc.Measured // the latest from before the CPU's times were known
	refused  bool         // the CPU takes no part, whatever its times
	fastest  seen         // of the plans for the manifest and the budget at hand
	settled  bool         // the fastest has been gone back to: no prediction weighs more than what was seen
	parted   bool         // the device has been tried alone after a plan in which the CPU took part
}

// An order is what others ask of a session; its goroutine carries it out.
type order struct {
	do    func(ctx context.Context) error
	reply chan error
}

// ID names the session.
func (s *Session) ID() string { return s.id }

// Done is closed when the session is over.
func (s *Session) Done() <-chan struct{} { return s.done }

// Stop asks the worker to end its session after the forward that it is in.
func (s *Session) Stop(ctx context.Context, reason string) error {
	return s.ask(ctx, func(context.Context) error { return s.stop(reason) })
}

// Shrink makes the worker give back size bytes of device memory within a time, and sends the plan for what is left.
// Where that plan cannot be made, nothing is sent and the error says why: *search.TooSmallError for too little memory.
func (s *Session) Shrink(ctx context.Context, size planner.Bytes, within time.Duration) error {
	return s.ask(ctx, func(ctx context.Context) error { return s.shrink(ctx, size, within) })
}

func (s *Session) ask(ctx context.Context, do func(context.Context) error) error {
	o := order{do: do, reply: make(chan error, 1)}
	select {
	case s.orders <- o:
		return <-o.reply
	case <-s.done:
		return ErrOver
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run holds the conversation until it is over or ctx is done.
func (s *Session) run(ctx context.Context) {
	defer close(s.done)
	inbox := make(chan heard)
	go listen(s.conn, inbox)
	greeting := time.NewTimer(ipc.HelloGrace)
	defer greeting.Stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(byeGrace, s.hangUp) })()
	for !s.state.Over() {
		select {
		case got := <-inbox:
			s.hear(ctx, got)
		case o := <-s.orders:
			o.reply <- o.do(ctx)
		case <-greeting.C:
			s.missGreeting()
		case <-ctx.Done():
			s.leave()
		}
	}
	s.hangUp()
	for range inbox { // until the listening goroutine has ended
	}
	s.conclude()
}

// heard is a message or the end of the connection.
type heard struct {
	message any
	err     error
}

// listen hands on what arrives until the connection ends.
func listen(c conn, inbox chan<- heard) {
	defer close(inbox)
	for {
		message, err := c.Receive()
		inbox <- heard{message, err}
		if err != nil {
			return
		}
	}
}

func (s *Session) missGreeting() {
	if s.state == Greeting {
		s.fail(ipc.CodeProtocol, fmt.Sprintf("no hello came within %v of connecting", ipc.HelloGrace))
	}
}

// hear takes one message through the transition table.
func (s *Session) hear(ctx context.Context, got heard) {
	switch {
	case errors.Is(got.err, ipc.ErrClosed):
		s.disconnect(got.err)
		return
	case got.err != nil:
		s.fail(ipc.CodeProtocol, got.err.Error())
		return
	}
	by, err := stepOf(got.message)
	if err != nil {
		s.fail(ipc.CodeProtocol, err.Error())
		return
	}
	stopping := s.state == Stopping
	if !s.take(by) {
		s.fail(ipc.CodeProtocol, fmt.Sprintf("%q is out of order while the session is %v", by, s.state))
		return
	}
	s.act(ctx, got.message, stopping)
}

// take moves on in the transition table; false where the step is out of order.
func (s *Session) take(by step) bool {
	next, ok := s.state.next(by)
	if ok {
		s.state = next
	}
	return ok
}

// stepOf names the step that a message takes.
func stepOf(message any) (step, error) {
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

// act does what a message in order calls for. While stopping only reports and outcomes still count.
func (s *Session) act(ctx context.Context, message any, stopping bool) {
	switch m := message.(type) {
	case *ipc.Hello:
		s.greet(*m)
	case *ipc.Manifest:
		if !stopping {
			s.learn(ctx, *m)
		}
	case *ipc.Measured:
		if !stopping {
			s.weigh(ctx, *m)
		}
	case *ipc.Report:
		s.follow(ctx, *m)
	case *ipc.Short:
		s.runShort(*m)
	case *ipc.Outcome:
		s.finish(*m)
	case *ipc.Failure:
		s.log.Warn("worker failed", "code", m.Code, "text", m.Text)
		s.observe(Failure{Session: s.id, Code: m.Code, Text: m.Text, ByWorker: true})
	case *ipc.Bye:
		s.log.Info("worker said bye", "reason", m.Reason)
	}
}

// greet answers a hello.
func (s *Session) greet(hello ipc.Hello) {
	switch {
	case hello.Protocol != ipc.Version:
		s.fail(ipc.CodeProtocol, fmt.Sprintf("the worker speaks protocol %d, this optimem speaks %d: install the same version on both sides",
			hello.Protocol, ipc.Version))
	case !plausible(hello.Device.TotalBytes, hello.Device.FreeBytes):
		s.fail(ipc.CodeProtocol, "the hello has a size that is out of range")
	case !s.admit():
		s.fail(ipc.CodeBusy, fmt.Sprintf("this controller already holds %d sessions, which is its limit", s.config.MaxSessions))
	default:
		s.hello = hello
		s.log.Info("session opened", "pid", s.pid, "device", hello.Device.Kind, "torch", hello.Torch, "python", hello.Python)
		s.observe(Opened{Session: s.id, PID: s.pid, Spawned: s.worker != nil, Hello: hello})
		s.send(&ipc.Welcome{Session: s.id, Terms: terms})
	}
}

// learn takes a manifest: plan 0 answers one as registered, the times follow one as recorded.
func (s *Session) learn(ctx context.Context, manifest ipc.Manifest) {
	s.log.Info("manifest", "model", manifest.Model, "recorded", manifest.Recorded, "units", len(manifest.Units),
		"weights_bytes", manifest.WeightsBytes, "buffer_bytes", manifest.BufferBytes, "calls", manifest.Calls, "steps", manifest.Steps)
	s.before = s.recording
	s.manifest, s.weighed, s.newer = manifest, false, false
	s.forget()
	if manifest.Recorded {
		return
	}
	plan, err := s.draft(ctx, ipc.Measured{}, s.limit)
	if err != nil {
		s.refuse(err)
		return
	}
	s.take(stepPlanned)
	s.adopt(plan)
}

// refuse answers a manifest that no plan can be made from. What was agreed before stays.
func (s *Session) refuse(err error) {
	s.take(stepRefused)
	s.recording = s.before
	s.log.Warn("manifest refused", "error", err)
	s.observe(Refused{Session: s.id, Code: ipc.CodeBadInput, Text: err.Error()})
	s.send(&ipc.Refused{Answers: s.weighings, Code: ipc.CodeBadInput, Text: err.Error()})
}

// runShort takes note of a forward that ran out of device memory.
func (s *Session) runShort(short ipc.Short) {
	if !plausible(short.RequestedBytes, short.FreeBytes, short.WeightsBytes, short.ActivationBytes) {
		s.fail(ipc.CodeProtocol, "a shortage has a figure that is out of range")
		return
	}
	s.log.Warn("worker ran out of device memory", "requested_bytes", short.RequestedBytes, "free_bytes", short.FreeBytes,
		"weights_bytes", short.WeightsBytes, "activation_bytes", short.ActivationBytes)
	s.observe(RanShort{Session: s.id, Short: short})
}

// weigh takes measured times. The first after a recording always lead to a plan, later ones only where it pays.
func (s *Session) weigh(ctx context.Context, measured ipc.Measured) {
	s.weighings++
	if !plausible(measured.FreeBytes, measured.LinkLatencyNS, measured.LinkBytesPerSecond,
		measured.CrossingLatencyNS, measured.CrossingBytesPerSecond) {
		s.fail(ipc.CodeProtocol, "a measured figure is out of range")
		return
	}
	if len(measured.StepCPUNS) == 0 {
		s.alone, s.refused = measured, false
	}
	plan, err := s.draft(ctx, measured, s.limit)
	if err != nil {
		s.reject(err)
		return
	}
	s.measured, s.newer = measured, true
	s.observe(Weighed{Session: s.id, Budget: plan.Budget, Bound: plan.Bound})
	switch {
	case !s.weighed: // what was seen so far is of another recording
		s.weighed, s.newer = true, false
		s.take(stepPlanned)
		s.adopt(plan)
	case s.worthwhile(plan.Plan):
		s.newer = false
		s.replace(plan)
	}
}

// reject answers times that no plan can be made from: with a plan from the same recording in force, that one stays.
func (s *Session) reject(err error) {
	if !s.weighed {
		s.refuse(err)
		return
	}
	s.log.Warn("kept the plan in force", "version", s.plan.Version, "error", err)
}

// follow takes a report.
func (s *Session) follow(ctx context.Context, report ipc.Report) {
	if report.PlanVersion > uint64(s.plan.Version) {
		s.fail(ipc.CodeProtocol, fmt.Sprintf("a report names plan %d, the latest one is %d", report.PlanVersion, s.plan.Version))
		return
	}
	if !plausible(report.Forwards, report.PeriodNS, report.H2DBytes, report.Misses, report.DeviceBytes,
		report.DevicePeakBytes, report.ActivationBytes, report.PinnedBytes) {
		s.fail(ipc.CodeProtocol, "a report has a figure that is out of range")
		return
	}
	s.report = report
	s.observe(Reported{Session: s.id, Report: report})
	s.reconsider(ctx)
}

// reconsider plans anew where a report shows the prediction to be off and there are times newer than the plan.
func (s *Session) reconsider(ctx context.Context) {
	if s.state != Running {
		return
	}
	if !s.newer || !s.mistaken(patience) {
		s.compare(ctx)
		return
	}
	s.newer = false
	plan, err := s.draft(ctx, s.measured, s.limit)
	if err != nil {
		s.reject(err)
		return
	}
	if !same(s.plan.Plan, plan.Plan) {
		s.replace(plan)
	}
}

// replace adopts a plan after having noted what was seen of the one in force, which is for the same recording.
func (s *Session) replace(d draft) {
	if budgetChanged(s.plan.Plan, d.Plan) {
		s.forget()
	} else if s.report.PlanVersion == uint64(s.plan.Version) {
		s.fastest = s.fastest.or(seen{s.plan, s.report.PeriodNS})
	}
	s.adopt(d)
}

func (s *Session) forget() { s.fastest, s.settled, s.parted = seen{}, false, false }

// compare looks, once, at how a plan fares beside others: when the host waits for what crosses, more comes to it than can be
// told beforehand.
func (s *Session) compare(ctx context.Context) {
	if s.compared == s.plan.Version || !s.tried() {
		return
	}
	s.compared = s.plan.Version
	if !s.goBack(ctx) && usesCPU(s.plan.Plan) && !s.parted {
		s.compareWithoutCPU(ctx)
	}
}

// goBack returns to the fastest plan that was seen, if that is faster than the one in force, by the newest times too, and
// still fits. Predictions weigh nothing from then on.
func (s *Session) goBack(ctx context.Context) bool {
	if !s.fastest.beats(s.report.PeriodNS) || same(s.fastest.Plan, s.plan.Plan) {
		return false
	}
	now, err := s.draft(ctx, s.measured, s.limit)
	if err != nil || budgetChanged(s.fastest.Plan, now.Plan) {
		s.forget()
		return false
	}
	timeline, err := planner.Evaluate(now.basis.Manifest, s.fastest.Plan, now.basis.Machine)
	if err != nil || uint64(timeline.Period) >= s.report.PeriodNS {
		return false
	}
	s.log.Info("an earlier plan was faster", "period_ns", s.report.PeriodNS, "before_ns", s.fastest.period)
	s.settled, s.refused = true, s.refused && !usesCPU(s.fastest.Plan)
	s.fastest.Version = s.nextVersion()
	s.adopt(s.fastest.draft)
	return true
}

// compareWithoutCPU gives the CPU's part back to the device where a plan in which the CPU takes part has turned out slower
// than one in which it does not.
func (s *Session) compareWithoutCPU(ctx context.Context) {
	s.refused = true
	plan, err := s.draft(ctx, s.measured, s.limit)
	if err != nil || uint64(plan.Period) >= s.report.PeriodNS {
		s.refused = false
		return
	}
	s.log.Info("the CPU takes no part any more", "period_ns", s.report.PeriodNS, "without_ns", int64(plan.Period))
	s.replace(plan)
	s.parted = true
}

// finish takes an outcome.
func (s *Session) finish(outcome ipc.Outcome) {
	if !plausible(outcome.Forwards, outcome.PlainPeriodNS) {
		s.fail(ipc.CodeProtocol, "an outcome has a figure that is out of range")
		return
	}
	s.observe(Finished{Session: s.id, Outcome: outcome})
}

// A draft is a plan and what it was made from.
type draft struct {
	planner.Plan
	basis Basis
}

// draft makes a plan for the manifest at hand, within limit device bytes if that is above 0.
func (s *Session) draft(ctx context.Context, measured ipc.Measured, limit planner.Bytes) (draft, error) {
	basis, err := s.basis(ctx, measured, limit)
	if err != nil {
		return draft{}, err
	}
	plan, err := search.Build(basis.Manifest, basis.Machine, basis.Options)
	if err != nil {
		return draft{}, err
	}
	plan.Version = s.nextVersion()
	return draft{plan, basis}, nil
}

// basis is what a plan is made from.
func (s *Session) basis(ctx context.Context, measured ipc.Measured, limit planner.Bytes) (b Basis, err error) {
	if s.refused {
		measured = withoutCPU(measured, s.alone)
	}
	if b.Manifest, err = ipc.ToManifest(s.manifest, measured); err != nil {
		return b, err
	}
	b.Manifest = b.Manifest.WithEstimates()
	if s.weighed {
		hold(b.Manifest, s.plan.Plan)
	}
	if b.Options, err = s.config.options(s.manifest.Wish); err != nil {
		return b, err
	}
	b.Machine = planner.Machine{
		Free: least(s.freeByWorker(measured), s.freeByCard(ctx), limit), Link: linkOf(measured), Crossing: crossingOf(measured),
	}
	return b, nil
}

func (s *Session) nextVersion() int {
	if !s.sent {
		return 0
	}
	return s.plan.Version + 1
}

// adopt sends a plan.
func (s *Session) adopt(d draft) {
	plan := d.Plan
	s.plan, s.sent, s.began = d, true, s.report.Forwards
	s.log.Info("plan sent", "version", plan.Version, "pages", len(plan.Pages), "budget_bytes", int64(plan.Budget),
		"period_ns", int64(plan.Period), "bound_ns", int64(plan.Bound))
	s.observe(Planned{Session: s.id, Manifest: s.manifest, Plan: plan, Basis: d.basis})
	message := ipc.FromPlan(plan)
	message.Answers = s.weighings
	s.send(&message)
}

// stop sends a stop, once.
func (s *Session) stop(reason string) error {
	stopping := s.state == Stopping
	if !s.take(stepStop) {
		return fmt.Errorf("stop session %s: it is %v: %w", s.id, s.state, ErrOutOfOrder)
	}
	if !stopping {
		s.send(&ipc.Stop{Reason: reason})
	}
	return nil
}

// shrink sends what is asked back and the plan for what is left.
func (s *Session) shrink(ctx context.Context, size planner.Bytes, within time.Duration) error {
	if s.state != Running || !s.weighed {
		return fmt.Errorf("shrink session %s: it is %v: %w", s.id, s.state, ErrOutOfOrder)
	}
	if size <= 0 || within < 0 {
		return fmt.Errorf("shrink session %s: %d bytes within %v make no sense: ask for more than 0 bytes", s.id, int64(size), within)
	}
	limit := s.plan.Budget + s.plan.Reserve - size
	if limit <= 0 {
		return fmt.Errorf("shrink session %s: it cannot give back %v, its plan takes %v", s.id, size, s.plan.Budget+s.plan.Reserve)
	}
	plan, err := s.draft(ctx, s.measured, limit)
	if err != nil {
		return fmt.Errorf("shrink session %s by %v: %w", s.id, size, err)
	}
	s.limit = limit
	s.forget()
	s.send(&ipc.Shrink{Bytes: uint64(size), WithinNS: uint64(within)})
	s.adopt(plan)
	return nil
}

// fail ends the session by telling the worker what went wrong.
func (s *Session) fail(code, text string) {
	s.take(stepFailure)
	s.log.Warn("session refused", "code", code, "text", text)
	s.observe(Failure{Session: s.id, Code: code, Text: text})
	s.send(&ipc.Failure{Code: code, Text: text})
}

// leave ends the session because the controller does.
func (s *Session) leave() {
	s.take(stepLeave)
	s.send(&ipc.Bye{Reason: "the controller ends; the plan in force stays good"})
}

// disconnect ends the session without a bye.
func (s *Session) disconnect(err error) {
	s.take(stepDisconnect)
	s.cause = cmp.Or(s.cause, err)
}

// send sends a message. A peer that is gone may have left words to read, so only the reading side ends a session then.
func (s *Session) send(message any) {
	err := s.conn.Send(message)
	if err == nil || errors.Is(err, ipc.ErrClosed) {
		return
	}
	s.cause = cmp.Or(s.cause, err)
	s.log.Warn("message not sent", "error", err)
	s.hangUp()
}

// hangUp closes the connection, again if need be.
func (s *Session) hangUp() { _ = s.conn.Close() }

// conclude tells how the session ended. A lost one of a spawned worker takes its cause from the end of the process.
func (s *Session) conclude() {
	ended := Ended{Session: s.id, State: s.state}
	if s.state == Lost {
		ended.Err = s.whyLost()
	}
	s.log.Info("session ended", "state", s.state.String(), "forwards", s.report.Forwards, "error", ended.Err)
	s.observe(ended)
}

func (s *Session) whyLost() error {
	if s.worker == nil || !s.worker.ended(exitGrace) {
		return fmt.Errorf("the connection to the worker (pid %d) ended without bye: %w", s.pid, s.cause)
	}
	var exit *ExitError
	if !errors.As(s.worker.Err(), &exit) {
		return fmt.Errorf("worker (pid %d) ended without bye", s.pid)
	}
	told := *exit
	told.Opened, told.Forwards = s.hello.Protocol != 0, s.report.Forwards
	return &told
}

func (s *Session) observe(event Event) { s.config.Observer.Observe(event) }

// plausible tells whether every figure fits a signed integer.
func plausible(figures ...uint64) bool {
	return !slices.ContainsFunc(figures, func(n uint64) bool { return n > math.MaxInt64 })
}
