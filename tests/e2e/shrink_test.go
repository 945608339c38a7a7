package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/optimem/optimem/controller"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/probe"
)

// A watcher keeps what a controller tells.
type watcher struct {
	mu       sync.Mutex
	session  string                // under mu
	plan     planner.Plan          // under mu: the latest
	reported []controller.Reported // under mu
	opened   chan struct{}
	ready    chan struct{}
}

func (w *watcher) Observe(event controller.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e := event.(type) {
	case controller.Listening:
		close(w.ready)
	case controller.Opened:
		w.session = e.Session
		close(w.opened)
	case controller.Planned:
		w.plan = e.Plan
	case controller.Reported:
		w.reported = append(w.reported, e)
	}
}

// latest is the latest report and the latest plan.
func (w *watcher) latest() (controller.Reported, planner.Plan) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reported) == 0 {
		return controller.Reported{}, w.plan
	}
	return w.reported[len(w.reported)-1], w.plan
}

func TestAServiceTakesPartOfAWorkersMemoryBackWhileItRuns(t *testing.T) {
	p := newPlace(t)
	finished := filepath.Join(t.TempDir(), "finished")
	path := write(t, "endless.py", endless)
	watch := &watcher{opened: make(chan struct{}), ready: make(chan struct{})}
	control, err := controller.New(controller.Config{Socket: filepath.Join(p.runtime, "s"), Observer: watch, Prober: probe.Fixed(probe.Reading{})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- control.Run(ctx) }()
	defer func() {
		end()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	<-watch.ready
	cmd := p.command(ctx)
	worker, err := control.Spawn(ctx, controller.Command{
		Python: python(t), Args: []string{"-u", "-m", "optimem_worker", "run", path, "--device", "sim", "--", "12", finished}, Env: cmd.Env,
	})
	if err != nil {
		t.Fatal(err)
	}
	<-watch.opened
	running := func() bool { report, plan := watch.latest(); return report.Report.Forwards > 20 && plan.Version > 0 }
	eventually(t, time.Minute, "the worker runs under a plan", running)
	before, plan := watch.latest()
	session, ok := control.Session(watch.session)
	if !ok {
		t.Fatal("the session is gone")
	}
	back := plan.Budget / 2
	if err := session.Shrink(ctx, back, time.Second); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the memory is back", func() bool {
		report, latest := watch.latest()
		return latest.Version > plan.Version && report.Report.PlanVersion == uint64(latest.Version) &&
			latest.Budget+latest.Reserve <= plan.Budget+plan.Reserve-back &&
			report.Report.DeviceBytes <= uint64(latest.Budget+latest.Reserve) && report.Report.DeviceBytes < before.Report.DeviceBytes
	})
	<-worker.Done()
	if err := worker.Err(); err != nil {
		t.Fatal(err)
	}
	if words := read(t, finished); !strings.HasPrefix(words, "same True") {
		t.Errorf("the results changed: %q", words)
	}
}
