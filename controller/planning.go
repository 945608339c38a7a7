package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
)

// A planning makes the plans of one session: it answers questions, and follows how the plan in force fares. It belongs to the
// session's goroutine. It knows neither the connection nor the state of the conversation.
type planning struct {
	config  Config
	session *Session
	log     *slog.Logger
	card    card
	say     func(message any) // to the worker
	tell    func(event Event) // to the observer

	course    *course       // whose plan is in force; nil before there is a plan from a recording
	asked     *course       // a recording whose times are awaited; nil where none is
	budget    budget        // for all plans to come
	short     planner.Bytes // activations of the latest forward that ran out of memory; 0 once a question took them up
	weighings uint64        // how many Measured have come
	plans     int           // how many were sent; the version of the next one
	report    ipc.Report    // the latest
}

// register answers a manifest as registered.
func (p *planning) register(ctx context.Context, manifest ipc.Manifest) {
	c := newCourse(manifest)
	d, err := p.draft(ctx, c)
	if err != nil {
		p.refuse(err)
		return
	}
	p.send(c, d)
}

// record takes a manifest as recorded. Its times follow.
func (p *planning) record(manifest ipc.Manifest) {
	p.asked, p.short = p.course.next(manifest, p.short), 0
}

// weigh takes measured times. The first of a recording answer the question that came with it, later ones may correct the plan.
func (p *planning) weigh(ctx context.Context, measured ipc.Measured) error {
	p.weighings++
	if !plausible(measured.FreeBytes, measured.LinkLatencyNS, measured.LinkBytesPerSecond,
		measured.CrossingLatencyNS, measured.CrossingBytesPerSecond) {
		return errors.New("a measured figure is out of range")
	}
	if p.asked != nil {
		p.answer(ctx, measured)
	} else {
		p.correct(ctx, measured)
	}
	return nil
}

// answer answers a recording with its first times. Where no plan can be made from them, everything stays as it was before.
func (p *planning) answer(ctx context.Context, measured ipc.Measured) {
	c := p.asked.with(measured)
	p.asked = nil
	d, err := p.draft(ctx, c)
	if err != nil {
		p.refuse(err)
		p.catchUp(ctx)
		return
	}
	p.course, c.newer = c, false
	c.found(foundTimes)
	p.weighed(d)
	p.send(c, d)
}

// correct plans from newer times, and sends the plan where the prediction was off or the budget is another one.
func (p *planning) correct(ctx context.Context, measured ipc.Measured) {
	c := p.course.with(measured)
	d, err := p.draft(ctx, c)
	if err != nil {
		p.keep(err)
		return
	}
	p.course = c
	p.weighed(d)
	if !same(c.plan.Plan, d.Plan) && (budgetChanged(c.plan.Plan, d.Plan) || c.isMistaken(p.report, 0)) {
		p.replace(d, foundMistaken)
	}
}

// hear takes a report.
func (p *planning) hear(report ipc.Report) error {
	if latest := max(p.plans-1, 0); report.PlanVersion > uint64(latest) {
		return fmt.Errorf("a report names plan %d, the latest one is %d", report.PlanVersion, latest)
	}
	if !plausible(report.Forwards, report.PeriodNS, report.H2DBytes, report.Misses, report.DeviceBytes,
		report.DevicePeakBytes, report.ActivationBytes, report.PinnedBytes) {
		return errors.New("a report has a figure that is out of range")
	}
	p.report = report
	return nil
}

// runShort takes note of a forward that ran out of device memory. The next recording that is asked about, if it is the one in
// force, is planned so that as much is left to activations.
func (p *planning) runShort(short ipc.Short) error {
	if !plausible(short.RequestedBytes, short.FreeBytes, short.WeightsBytes, short.ActivationBytes) {
		return errors.New("a shortage has a figure that is out of range")
	}
	p.short = planner.Bytes(short.ActivationBytes)
	return nil
}

// reconsider looks at what the latest report shows of the plan in force: whether its prediction is off and there are newer
// times, or whether it has run for long enough to be compared with others.
func (p *planning) reconsider(ctx context.Context) {
	switch c := p.course; {
	case c.newer && c.isMistaken(p.report, patience):
		p.planAnew(ctx)
	case c.isTriedOut(p.report):
		c.found(foundTried)
		p.compare(ctx)
	}
}

// planAnew plans from the newer times.
func (p *planning) planAnew(ctx context.Context) {
	p.course.newer = false
	d, err := p.draft(ctx, p.course)
	if err != nil {
		p.keep(err)
		return
	}
	if !same(p.course.plan.Plan, d.Plan) {
		p.replace(d, foundMistaken)
	}
}

// compare looks, once for each plan, whether another one would be faster: an earlier plan, or one without the CPU. Periods
// cannot be predicted exactly where the host waits for activations to change sides.
func (p *planning) compare(ctx context.Context) {
	if d, ok := p.earlier(ctx); ok {
		p.goBack(d)
	} else if d, ok := p.alone(ctx); ok {
		p.leaveOutCPU(d)
	}
}

// earlier is the fastest plan that was seen, if it was faster than the one in force, would be by the newest times too, and
// still fits.
func (p *planning) earlier(ctx context.Context) (d draft, ok bool) {
	c := p.course
	if !c.heeds(foundSlower) || !c.fastest.beats(p.report.PeriodNS) || same(c.fastest.Plan, c.plan.Plan) {
		return d, false
	}
	now, err := p.draft(ctx, c)
	if err != nil || budgetChanged(c.fastest.Plan, now.Plan) {
		c.forget()
		return d, false
	}
	period, err := now.basis.evaluate(c.fastest.Plan)
	return c.fastest.draft, err == nil && uint64(period) < p.report.PeriodNS
}

// goBack returns to an earlier plan.
func (p *planning) goBack(d draft) {
	c := p.course
	p.log.Info("an earlier plan was faster", "period_ns", p.report.PeriodNS, "before_ns", c.fastest.period)
	c.noCPU = c.noCPU && !usesCPU(d.Plan)
	c.found(foundSlower)
	p.send(c, d)
}

// alone is a plan without the CPU, if the CPU takes part in the one in force and the device alone would be faster by its
// prediction. It is tried once.
func (p *planning) alone(ctx context.Context) (d draft, ok bool) {
	c := p.course
	if !c.heeds(foundCPUSlower) || !usesCPU(c.plan.Plan) || c.aloneTried {
		return d, false
	}
	d, err := p.draft(ctx, c.withoutCPU())
	return d, err == nil && uint64(d.Period) < p.report.PeriodNS
}

// leaveOutCPU replaces the plan in force by one without the CPU.
func (p *planning) leaveOutCPU(d draft) {
	p.log.Info("the CPU takes no part any more", "period_ns", p.report.PeriodNS, "without_ns", int64(d.Period))
	p.course.noCPU = true
	p.replace(d, foundCPUSlower)
	p.course.aloneTried = true
}

// setBudget sets the budget of the plans to come, and where one is in force replaces it: by a plan for less after asking bytes
// back, by one for more if it makes a difference. Where no such plan can be made nothing changes.
func (p *planning) setBudget(ctx context.Context, to budget, within time.Duration) error {
	before := p.budget
	p.budget = to
	if p.course == nil || p.asked != nil {
		return nil
	}
	d, err := p.draft(ctx, p.course)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		p.budget = before
		return err
	}
	inForce := p.course.plan.Plan
	owed := to.owed(inForce)
	if owed > 0 {
		p.say(&ipc.Shrink{Bytes: uint64(owed), WithinNS: uint64(within)})
	}
	if owed > 0 || budgetChanged(inForce, d.Plan) {
		p.course.newer = false
		p.course.found(foundChange)
		p.course.found(foundTimes)
		p.send(p.course, d)
	}
	return nil
}

// catchUp brings a plan that stays in force within a budget that was set while another one was expected to follow.
func (p *planning) catchUp(ctx context.Context) {
	if p.course == nil || p.budget.owed(p.course.plan.Plan) == 0 {
		return
	}
	if err := p.setBudget(ctx, p.budget, 0); err != nil {
		p.keep(err)
	}
}

// draft makes a plan for a course.
func (p *planning) draft(ctx context.Context, c *course) (draft, error) {
	basis, err := p.basis(ctx, c)
	if err != nil {
		return draft{}, err
	}
	plan, err := basis.build()
	return draft{plan, basis}, err
}

// basis is what the plans of a course are made from.
func (p *planning) basis(ctx context.Context, c *course) (b Basis, err error) {
	if b.Manifest, err = c.forPlanner(); err != nil {
		return b, err
	}
	if b.Options, err = p.config.options(c.manifest.Wish); err != nil {
		return b, err
	}
	times := c.times()
	b.Machine = planner.Machine{Link: linkOf(times), Crossing: crossingOf(times)}
	free := least(p.card.freeByWorker(times), p.card.freeByReading(ctx))
	b.Machine.Free = p.budget.of(least(free, p.config.Broker.Lease(p.session, free, b.curve)))
	return b, nil
}

// replace sends a plan in place of the one in force.
func (p *planning) replace(d draft, why finding) {
	p.course.newer = false
	p.course.replace(d.Plan, why, p.report)
	p.send(p.course, d)
}

// send sends a plan, which is in force from then on.
func (p *planning) send(c *course, d draft) {
	d.Version = p.plans
	p.plans++
	c.plan, c.began = &d, p.report.Forwards
	p.log.Info("plan sent", "version", d.Version, "pages", len(d.Pages), "budget_bytes", int64(d.Budget),
		"period_ns", int64(d.Period), "bound_ns", int64(d.Bound), "standing", c.standing.String())
	p.tell(Planned{Of: Of(p.session.id), Manifest: c.manifest, Plan: d.Plan, Basis: d.basis})
	message := ipc.FromPlan(d.Plan)
	message.Answers = p.weighings
	p.say(&message)
}

// refuse answers a question that no plan can be made for.
func (p *planning) refuse(err error) {
	p.log.Warn("question refused", "error", err)
	p.tell(Refused{Of: Of(p.session.id), Code: ipc.CodeBadInput, Text: err.Error()})
	p.say(&ipc.Refused{Answers: p.weighings, Code: ipc.CodeBadInput, Text: err.Error()})
}

// keep notes that newer times give no plan.
func (p *planning) keep(err error) {
	p.log.Warn("kept the plan in force", "version", p.course.plan.Version, "error", err)
}

// weighed tells what the latest times say, whether or not they lead to a plan.
func (p *planning) weighed(d draft) {
	p.tell(Weighed{Of: Of(p.session.id), Budget: d.Budget, Bound: d.Bound})
}
