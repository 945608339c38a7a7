package main

import (
	"context"
	"sync"
	"time"

	"github.com/optimem/optimem/controller"
	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
)

// How long the last words of a worker may take to be heard after its process has ended.
const (
	lastWords  = 2 * time.Second        // of an open session
	firstWords = 300 * time.Millisecond // of a worker that failed before it opened one
)

// A record is what is known of one session.
type record struct {
	opened   controller.Opened
	manifest ipc.Manifest
	plans    map[uint64]controller.Planned // by version, none older than the one in force
	latest   uint64                        // version of the latest plan
	weighed  controller.Weighed
	report   ipc.Report
	outcome  ipc.Outcome
	finished bool // there is an outcome
	failure  controller.Failure
	failed   bool
	refusal  controller.Refused
	refused  bool // of a manifest, and there is no plan to go on with
	ended    controller.Ended
	over     bool
}

// inForce is the plan that the worker followed last, as far as it told.
func (r *record) inForce() controller.Planned {
	if plan, ok := r.plans[r.report.PlanVersion]; ok && r.report.Forwards > 0 {
		return plan
	}
	return r.plans[r.latest]
}

// bound is the bound within the budget of the plan in force, by the latest times: a plan is made from times that the
// recorded forward gave, and a bound from such times may be too high.
func (r *record) bound() planner.Nanoseconds {
	plan := r.inForce().Plan
	if r.weighed.Budget == plan.Budget && r.weighed.Bound > 0 {
		return r.weighed.Bound
	}
	return plan.Bound
}

// note takes an event in.
func (r *record) note(event controller.Event) {
	switch e := event.(type) {
	case controller.Opened:
		r.opened = e
	case controller.Planned:
		r.manifest, r.latest, r.refused = e.Manifest, uint64(e.Plan.Version), false
		r.plans[r.latest] = e
	case controller.Weighed:
		r.weighed = e
	case controller.Reported:
		r.report = e.Report
		r.forgetBefore(e.Report.PlanVersion)
	case controller.Finished:
		r.outcome, r.finished = e.Outcome, true
	case controller.Refused:
		r.refusal, r.refused = e, len(r.plans) == 0
	case controller.Failure:
		r.failure, r.failed = e, true
	case controller.Ended:
		r.ended, r.over = e, true
	}
}

// lastWords are why the session could not go on, as far as somebody said so.
func (r *record) lastWords() (code, text string, said bool) {
	switch {
	case r.failed:
		return r.failure.Code, r.failure.Text, true
	case r.refused:
		return r.refusal.Code, r.refusal.Text, true
	}
	return "", "", false
}

func (r *record) forgetBefore(version uint64) {
	for v := range r.plans {
		if v < version {
			delete(r.plans, v)
		}
	}
}

// A follower gathers what a controller's sessions say, and moves the progress along.
type follower struct {
	request  runRequest
	progress progress
	ready    chan struct{} // closed when workers can dial
	ended    chan struct{} // closed when the controller is down
	changed  chan struct{} // holds a token after a change
	recorded chan struct{} // holds a token once a forward is recorded

	mu      sync.Mutex
	serving bool               // under mu: workers can dial
	told    bool               // under mu: the user knows that the card is simulated
	records map[string]*record // under mu, by session
	order   []string           // under mu: sessions in the order in which they came up
}

func newFollower(request runRequest, progress progress) *follower {
	f := &follower{
		request: request, progress: progress, records: map[string]*record{},
		ready: make(chan struct{}), ended: make(chan struct{}), changed: make(chan struct{}, 1),
		recorded: make(chan struct{}, 1), told: request.again,
	}
	progress.phase("starting Python and loading the model")
	return f
}

// Observe implements controller.Observer.
func (f *follower) Observe(event controller.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id := event.Session(); id != "" {
		f.record(id).note(event)
	} else {
		f.serving = true
		close(f.ready)
	}
	f.show(event)
	mark(f.changed)
	if planned, ok := event.(controller.Planned); ok && planned.Basis.Manifest.Recorded {
		mark(f.recorded)
	}
}

// mark leaves a token, unless one is there.
func mark(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}

// record is the record of a session, a new one where it was not heard of. Callers hold mu.
func (f *follower) record(id string) *record {
	r, ok := f.records[id]
	if !ok {
		r = &record{plans: map[uint64]controller.Planned{}}
		f.records[id] = r
		f.order = append(f.order, id)
	}
	return r
}

// show moves the progress along. Callers hold mu.
func (f *follower) show(event controller.Event) {
	switch e := event.(type) {
	case controller.Opened:
		if e.Hello.Device.Simulated && !f.told {
			f.told = true
			f.progress.say(simulatedLine(f.request.flags.device))
		}
		f.progress.phase("preparing the weights")
	case controller.Planned:
		f.progress.phase(phaseOf(e.Plan.Version))
	case controller.Reported:
		f.progress.step(e.Report.Forwards)
	}
}

// simulatedLine says that no real card is at work, and why.
func simulatedLine(device string) string {
	if device == "auto" {
		return "No accelerator found: using the simulated card; times are simulated, not those of a GPU."
	}
	return "Simulated card: times are simulated, not those of a GPU."
}

// phaseOf says what a worker does once it has a plan.
func phaseOf(version int) string {
	if version == 0 {
		return "recording the first forward"
	}
	return "running"
}

// listening waits until workers can dial; false where the controller ended or ctx was done before.
func (f *follower) listening(ctx context.Context) bool {
	select {
	case <-f.ready:
		return true
	case <-f.ended:
		return false
	case <-ctx.Done():
		return false
	}
}

// down tells that the controller has ended.
func (f *follower) down() { close(f.ended) }

// toTheEnd waits for the end of the worker, and for its last words, or in a recording for the first plan from it.
func (f *follower) toTheEnd(ctx context.Context, worker *controller.Worker) ending {
	var recorded chan struct{} // nobody waits for it in a run
	if f.request.recording {
		recorded = f.recorded
	}
	select {
	case <-recorded:
		f.progress.phase("stopping the model")
		return ending{records: f.spoken()}
	case <-worker.Done():
	case <-ctx.Done():
		f.progress.phase("stopping; a second Ctrl-C kills at once")
		return ending{}
	}
	f.settle(worker.Err() != nil)
	return ending{worker: worker.Err(), records: f.spoken()}
}

// settle waits until every session is over. A worker that failed may just have said why before it opened one.
func (f *follower) settle(failed bool) {
	first, last := time.NewTimer(firstWords), time.NewTimer(lastWords)
	defer first.Stop()
	defer last.Stop()
	waiting := failed
	for open, spoke := f.count(); open > 0 || (waiting && !spoke); open, spoke = f.count() {
		select {
		case <-f.changed:
		case <-first.C:
			waiting = false
		case <-last.C:
			return
		}
	}
}

// count is how many sessions are open, and whether any worker has spoken.
func (f *follower) count() (open int, spoke bool) {
	for _, r := range f.spoken() {
		if spoke = true; !r.over {
			open++
		}
	}
	return open, spoke
}

// spoken are copies of the records of all connections on which a worker said something, in the order of their beginning.
func (f *follower) spoken() (records []record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.order {
		if r := f.records[id]; r.failed || r.opened.Session() != "" {
			records = append(records, *r)
		}
	}
	return records
}

func (f *follower) close() { f.progress.close() }
