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
		w.session = e.Session()
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

// serve runs a controller in this process for as long as the test does.
func serve(t *testing.T, p place) (*controller.Controller, *watcher) {
	t.Helper()
	watch := &watcher{opened: make(chan struct{}), ready: make(chan struct{})}
	control, err := controller.New(controller.Config{Socket: filepath.Join(p.runtime, "s"), Observer: watch, Prober: probe.Fixed(probe.Reading{})})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	ctx, end := context.WithCancel(t.Context())
	go func() { served <- control.Run(ctx) }()
	t.Cleanup(func() {
		end()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	<-watch.ready
	return control, watch
}

// spawn starts a script as a worker.
func spawn(t *testing.T, p place, control *controller.Controller, script ...string) *controller.Worker {
	t.Helper()
	args := append([]string{"-u", "-m", "optimem_worker", "run", script[0], "--device", "sim", "--"}, script[1:]...)
	worker, err := control.Spawn(t.Context(), controller.Command{Python: python(t), Args: args, Env: p.command(t.Context()).Env})
	if err != nil {
		t.Fatal(err)
	}
	return worker
}

// odd has an odd number of equal layers and room for two of them.
const odd = `
import sys, torch, optimem
torch.manual_seed(0)
model = torch.nn.Sequential(*[torch.nn.Linear(512, 512, bias=False) for _ in range(5)]).eval()
x = torch.rand(384, 512)
with torch.no_grad():
    plain = model(x)
    optimem.page(model, vram="40%", max_layer_size=512 * 512)
    same = all(torch.equal(model(x).cpu(), plain) for _ in range(9))
open(sys.argv[1], "w").write(f"same {same} misses {optimem.status(model).misses}")
`

func TestARingThatTurnsInTwoLapsKeepsTheResults(t *testing.T) {
	p := newPlace(t)
	finished := filepath.Join(t.TempDir(), "finished")
	control, watch := serve(t, p)
	worker := spawn(t, p, control, write(t, "odd.py", odd), finished)
	<-worker.Done()
	if err := worker.Err(); err != nil {
		t.Fatal(err)
	}
	if _, plan := watch.latest(); plan.Laps != 2 {
		t.Errorf("the ring turns in %d laps: %+v", plan.Laps, plan)
	}
	if words := read(t, finished); words != "same True misses 0" {
		t.Errorf("got %q", words)
	}
}

func TestAServiceTakesPartOfAWorkersMemoryAndGivesItBackWhileItRuns(t *testing.T) {
	p := newPlace(t)
	finished := filepath.Join(t.TempDir(), "finished")
	control, watch := serve(t, p)
	worker := spawn(t, p, control, write(t, "endless.py", endless), "12", finished)
	<-watch.opened
	running := func() bool { report, plan := watch.latest(); return report.Report.Forwards > 20 && plan.Version > 0 }
	eventually(t, time.Minute, "the worker runs under a plan", running)
	before, plan := watch.latest()
	session, ok := control.Session(watch.session)
	if !ok {
		t.Fatal("the session is gone")
	}
	back := plan.Budget / 2
	if err := session.Shrink(t.Context(), back, time.Second); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the memory is back", func() bool {
		report, latest := watch.latest()
		return latest.Version > plan.Version && report.Report.PlanVersion == uint64(latest.Version) &&
			latest.Budget+latest.Reserve <= plan.Budget+plan.Reserve-back &&
			report.Report.DeviceBytes <= uint64(latest.Budget+latest.Reserve) && report.Report.DeviceBytes < before.Report.DeviceBytes
	})
	less, small := watch.latest()
	if err := session.SetBudget(t.Context(), 0, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the worker uses it again", func() bool {
		report, latest := watch.latest()
		return latest.Version > small.Version && report.Report.PlanVersion == uint64(latest.Version) && latest.Budget == plan.Budget &&
			report.Report.DeviceBytes > less.Report.DeviceBytes
	})
	<-worker.Done()
	if err := worker.Err(); err != nil {
		t.Fatal(err)
	}
	if words := read(t, finished); !strings.HasPrefix(words, "same True") {
		t.Errorf("the results changed: %q", words)
	}
}
