package search

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/optimem/optimem/planner"
)

// Build makes the plan for a manifest within what the machine has and the user wishes.
//
// It is the best, under Evaluate, of what a search finds: it begins with simple rules (the first pages, the last, an even
// spread, the largest, the smallest) and with credit passes, and makes the best of them better by single moves. Among equal
// periods it takes the least device memory. A *TooSmallError says that the budget cannot hold what must be on the device at
// once.
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

// ErrBroken tells that the planner made a plan that breaks one of its promises: a fault of the planner's own.
var ErrBroken = errors.New("the planner broke a promise of its own")

// A builder holds what all rules share.
type builder struct {
	m       planner.Manifest
	machine planner.Machine
	o       planner.Options
	budget  planner.Bytes
	reserve planner.Bytes
	holds   bool // something is on the device already
}

func (b builder) checked(p planner.Plan, err error) (planner.Plan, error) {
	if err != nil {
		return planner.Plan{}, err
	}
	p.Mode, p.Budget, p.Reserve = b.o.Mode, b.budget, b.reserve
	if err := p.Check(b.m); err != nil {
		return planner.Plan{}, fmt.Errorf("plan %s: %w: %v", b.m.Model, ErrBroken, err) //nolint:errorlint // not the caller's fault any more
	}
	return p, nil
}

func (b builder) largest() planner.Unit {
	return slices.MaxFunc(b.m.Units, func(x, y planner.Unit) int { return cmp.Compare(x.Bytes, y.Bytes) })
}

func (b builder) tooSmall(need planner.Bytes, what string) error {
	return &TooSmallError{Budget: b.budget, Need: need, Reserve: b.reserve, What: what}
}

// page plans from a recording with all computation on the device.
func (b builder) page() (planner.Plan, error) {
	best, err := b.best(func(l *lap) *search { return newSearch(l, b.budget) })
	if err == nil {
		best.Bound = planner.Bound(b.m, b.machine, b.budget)
	}
	return best, err
}

// best searches every grouping and returns the best plan, or why the first one has none.
func (b builder) best(search func(l *lap) *search) (planner.Plan, error) {
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
	best, err := b.keep(best, search)
	if err != nil {
		return planner.Plan{}, err
	}
	best.Fill, best.First = fill(b.m, best, b.machine)
	return best, nil
}

// groupings are the ways to make pages that are worth a search. Where pages are many, one is enough.
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

// mayRegroup tells whether the size of pages is for the planner to choose.
func (b builder) mayRegroup() bool { return !b.o.PagesAsGiven && b.o.MaxLayerSize == 0 }

// pageOf plans for the pages of a search. Where they all fit there is nothing to search, unless the CPU is faster at a step.
func (b builder) pageOf(s *search) (planner.Plan, error) {
	all := s.lap.allHere()
	faster := func(step planner.Step) bool { return step.CPU < step.Compute }
	if s.lap.weight(all, planner.Resident) <= b.budget && (len(all) == 0 || s.mayLeave == nil || !slices.ContainsFunc(b.m.Steps, faster)) {
		return b.finish(b.assemble(s.lap, all))
	}
	s.run()
	if len(s.best) == 0 {
		return planner.Plan{}, b.least(s)
	}
	return b.lay(s)
}

// layouts are the efforts that go into layouts, in neighbours looked at, some 2 ns each: little for every choice, then more
// for the best ones together. Short lists have many choices that are worth it.
func layouts(pages int) []layoutPass {
	if pages > shortList {
		return []layoutPass{{choices: 1 << 20, each: 60_000}, {choices: 3, together: 600_000}}
	}
	return []layoutPass{{choices: 1 << 20, each: 600_000}, {choices: 4, together: 6_000_000}}
}

type layoutPass struct{ choices, each, together int }

// lay gives the best choices of a search offsets until the next one cannot be better any more, and takes the best plan.
func (b builder) lay(s *search) (planner.Plan, error) {
	var best planner.Plan
	s.lighten()
	for _, pass := range layouts(len(s.lap.pages)) {
		effort := pass.together
		for i, c := range s.inTurn() {
			if i == pass.choices || best.Pages != nil && b.cost(best) <= s.best[0].period {
				break
			}
			if best.Pages != nil && b.cost(best) <= c.period {
				continue
			}
			p := b.assemble(s.lap, c.places)
			effort += pass.each
			if !s.arrange(&p, c, b.budget-c.resident, &effort) {
				continue
			}
			candidate, err := b.finish(p)
			if err != nil {
				return planner.Plan{}, err
			}
			if best.Pages == nil || b.better(candidate, best) {
				best = candidate
			}
		}
	}
	if best.Pages == nil {
		return planner.Plan{}, b.least(s)
	}
	return best, nil
}

// least says how many bytes are missing for the way to place pages that needs the least.
func (b builder) least(s *search) error {
	places := s.smallest()
	together, page := s.lap.together(places)
	var names []string
	for i, p := range places {
		if p == planner.Resident {
			names = append(names, b.m.Units[s.lap.pages[i].units[0]].Path)
		}
	}
	what := "what must stay resident because it is read over many steps, " + few(names)
	if together > 0 {
		what = "the largest page, " + b.m.Units[s.lap.pages[page].units[0]].Path
		if together > s.lap.pages[page].bytes {
			what = "what is used at the same time as " + b.m.Units[s.lap.pages[page].units[0]].Path
		}
		if len(names) > 0 {
			what += ", with what must stay resident because it is read over many steps, " + few(names) + ","
		}
	}
	return b.tooSmall(max(s.need(places), b.budget+1), what)
}

// few names the first of some paths.
func few(paths []string) string {
	if len(paths) > 3 {
		return fmt.Sprintf("%s, %s, %s and %d more", paths[0], paths[1], paths[2], len(paths)-3)
	}
	return fmt.Sprint(paths)
}

// assemble makes a plan of placed pages. Its copies have no offsets yet.
func (b builder) assemble(l *lap, places []planner.Placement) planner.Plan {
	p := planner.Plan{Mode: b.o.Mode, Laps: 1}
	for i, d := range l.pages {
		p.Pages = append(p.Pages, planner.Page{Units: slices.Clip(d.units), Bytes: d.bytes, Placement: places[i]})
	}
	p.Resident = l.weight(places, planner.Resident)
	p.Copies = l.copiesOf(places)
	p.Eviction = evictionOrder(p.Pages)
	p.Pages = append(p.Pages, unread(b.m)...)
	return p
}

// finish evaluates a plan.
func (b builder) finish(p planner.Plan) (planner.Plan, error) {
	if p.Resident+p.Arena > b.budget {
		return planner.Plan{}, fmt.Errorf("residents of %v and an arena of %v exceed %v", p.Resident, p.Arena, b.budget)
	}
	timeline, err := planner.Evaluate(b.m, p, b.machine)
	if err != nil {
		return planner.Plan{}, err
	}
	p.Period = timeline.Period
	p.Bottleneck = b.bottleneck(p, timeline)
	return p, nil
}

// bottleneck names the engine that sets the period, within a twentieth.
func (b builder) bottleneck(p planner.Plan, timeline planner.Timeline) planner.Bottleneck {
	var compute, link, onCPU planner.Nanoseconds
	for i, s := range b.m.Steps {
		if timeline.OnCPU != nil && timeline.OnCPU[i] {
			compute, onCPU = compute+s.CPU, onCPU+s.CPU
			continue
		}
		compute += s.Compute
	}
	for _, c := range p.Copies {
		link += b.machine.Link.Transfer(p.Pages[c.Page].Bytes) / planner.Nanoseconds(p.Turn())
	}
	switch slack := p.Period / 20; {
	case compute == 0 && link == 0:
		return planner.BoundUnknown
	case compute >= p.Period-slack && onCPU > compute/2:
		return planner.BoundByCPU
	case compute >= p.Period-slack:
		return planner.BoundByCompute
	case link >= p.Period-slack:
		return planner.BoundByLink
	}
	return planner.BoundByMemory
}

// better compares two plans: by cost, and among equals by memory and then by traffic.
func (b builder) better(x, y planner.Plan) bool {
	return cmp.Or(
		cmp.Compare(b.cost(x), b.cost(y)),
		cmp.Compare(x.Resident+x.Arena, y.Resident+y.Arena),
		cmp.Compare(len(x.Copies)*y.Turn(), len(y.Copies)*x.Turn()),
	) < 0
}
