package search

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/optimem/optimem/planner"
)

// Build makes the plan for a manifest within the memory of the machine and the wishes of the user.
//
// It searches for the plan with the shortest period under planner.Evaluate. The search starts with simple rules (the first
// pages are resident, the last, an even spread, the largest, the smallest) and with credit passes. It then improves the best of
// these by single moves. Among plans with equal periods it takes the one with the least device memory.
//
// A *TooSmallError says by how many bytes the budget is too small. planner.ErrInvalid says that the manifest or the machine
// contradicts itself. ErrBroken says that the search made a plan that breaks a promise.
func Build(m planner.Manifest, machine planner.Machine, o planner.Options) (planner.Plan, error) {
	if err := planner.Check(m, machine); err != nil {
		return planner.Plan{}, err
	}
	if !o.Mode.Known() {
		return planner.Plan{}, fmt.Errorf("plan %s: there is no mode %q: give %s", m.Model, o.Mode, planner.ModeNames())
	}
	if machine.Free == 0 && o.VRAM == (planner.Share{}) && o.Budget == 0 && (m.Recorded || o.Mode.Streams()) {
		return planner.Plan{}, fmt.Errorf("plan %s: the device does not tell how much memory it has: say how much to use, such as vram 6GiB or 25%%", m.Model)
	}
	forWeights, reserved := budget(m, machine, o)
	if !o.Mode.Streams() {
		forWeights = max(0, forWeights) // without a chunk the CPU computes with what is not paged
	}
	b := builder{m: m, machine: machine, o: o, budget: forWeights, reserve: reserved, holds: holds(m)}
	switch {
	case !o.Mode.Streams():
		return b.checked(b.chunk())
	case !m.Recorded:
		return b.checked(b.onTouch())
	case o.Mode.UsesCPU() && b.knowsCPU():
		return b.checked(b.mixed())
	}
	return b.checked(b.page())
}

// ErrBroken says that the search made a plan that breaks one of its promises: a fault of this package, not of its caller.
var ErrBroken = errors.New("the planner broke a promise of its own")

// A builder has what all ways to make a plan share.
type builder struct {
	m       planner.Manifest
	machine planner.Machine
	o       planner.Options
	budget  planner.Bytes
	reserve planner.Bytes
	holds   bool // some unit is on the device already
}

// checked completes a plan with the mode, the budget and the reserve, and checks its promises.
func (b builder) checked(p planner.Plan, err error) (planner.Plan, error) {
	if err != nil {
		return planner.Plan{}, err
	}
	p.Mode, p.Budget, p.Reserve = b.o.Mode, b.budget, b.reserve
	if err := p.Check(b.m); err != nil {
		return planner.Plan{}, fmt.Errorf("plan %s: %w: %v", b.m.Model, ErrBroken, err) //nolint:errorlint // hides ErrInvalid: the caller gave nothing invalid
	}
	return p, nil
}

// page plans from a recording. The device computes all pages.
func (b builder) page() (planner.Plan, error) {
	best, err := b.best(func(l *lap) *finder { return newFinder(l, b.budget) })
	if err == nil {
		best.Bound = planner.Bound(b.m, b.machine, b.budget)
	}
	return best, err
}

// best searches every grouping and returns the best plan. Where no grouping has a plan, it returns the error of the first one.
func (b builder) best(search func(l *lap) *finder) (planner.Plan, error) {
	var best planner.Plan
	var failed error
	for _, drafts := range b.groupings(newGrouping(b.m, b.o)) {
		candidate, err := b.pageOf(search(newLap(b.m, b.machine, drafts)))
		switch {
		case err != nil:
			failed = cmp.Or(failed, err)
		case best.Pages == nil || b.better(candidate, best):
			best = candidate
		}
	}
	if best.Pages == nil && b.mayRegroup() { // single units need the least
		best, failed = b.pageOf(search(newLap(b.m, b.machine, newGrouping(b.m, b.o).drafts())))
	}
	if best.Pages == nil {
		return planner.Plan{}, failed
	}
	best, err := b.nearHeld(best, search)
	if err != nil {
		return planner.Plan{}, err
	}
	best.Fill, best.First = fill(b.m, best, b.machine)
	return best, nil
}

// groupings are the ways to make pages that are worth a search. Long lists get one way only.
func (b builder) groupings(g grouping) [][]draft {
	if !b.mayRegroup() {
		return [][]draft{g.drafts()}
	}
	var out [][]draft
	for _, g.target = range pageSizes(b.m.Weights(), b.budget, b.machine.Link) {
		drafts := g.drafts()
		if len(out) > 0 && len(drafts) > mostLocal {
			continue
		}
		if !slices.ContainsFunc(out, func(other []draft) bool { return len(other) == len(drafts) }) {
			out = append(out, drafts)
		}
	}
	return out
}

// mayRegroup tells whether the planner chooses the size of pages.
func (b builder) mayRegroup() bool { return !b.o.PagesAsGiven && b.o.MaxLayerSize == 0 }

// pageOf plans for the pages of a finder. Where all pages fit, it searches only if the CPU is faster at some step.
func (b builder) pageOf(s *finder) (planner.Plan, error) {
	all := s.lap.allResident()
	faster := func(step planner.Step) bool { return step.CPU < step.Compute }
	if s.lap.bytesAt(all, planner.Resident) <= b.budget && (len(all) == 0 || s.forCPU == nil || !slices.ContainsFunc(b.m.Steps, faster)) {
		return b.finish(b.assemble(s.lap, all))
	}
	s.find()
	if len(s.best) == 0 {
		return planner.Plan{}, b.least(s)
	}
	return b.lay(s)
}

// better compares two plans: first by cost, then by memory, then by traffic.
func (b builder) better(x, y planner.Plan) bool {
	return cmp.Or(
		cmp.Compare(b.cost(x), b.cost(y)),
		cmp.Compare(x.Resident+x.Arena, y.Resident+y.Arena),
		cmp.Compare(len(x.Copies)*y.Turn(), len(y.Copies)*x.Turn()),
	) < 0
}
