package planner

import (
	"cmp"
	"fmt"
	"slices"
)

// arenaFactors are the arenas that Build tries, in halves of the largest streamed page.
var arenaFactors = []Bytes{2, 3, 4, 5, 6, 8}

// A plan this much slower than the best one is as good where it takes less memory: 1/500.
const tie = 500

// Build makes the plan for a manifest within what the machine has and the user wishes.
//
// It is always the best, under Evaluate, of an even spread of residents over the model and of the simple rules (the first
// pages, the last pages), each with several arenas. A *TooSmallError says that the budget cannot hold what must be on the
// device at once.
func Build(m Manifest, machine Machine, o Options) (Plan, error) {
	if err := m.Check(); err != nil {
		return Plan{}, err
	}
	if err := machine.check(); err != nil {
		return Plan{}, err
	}
	if machine.Free == 0 && o.VRAM == (Share{}) && o.Budget == 0 && (o.Mode == ModePage || m.Recorded) {
		return Plan{}, fmt.Errorf("plan %s: the device does not tell how much memory it has: say how much to use, such as vram 6GiB or 25%%", m.Model)
	}
	forWeights, reserved := budget(m, machine, o)
	b := builder{m: m, machine: machine, o: o, budget: forWeights, reserve: reserved}
	switch {
	case o.Mode == ModeChunk:
		return b.checked(b.chunk(), nil)
	case o.Mode != ModePage:
		return Plan{}, fmt.Errorf("plan %s: there is no mode %q: give page or chunk", m.Model, o.Mode)
	case !m.Recorded:
		return b.checked(b.onTouch())
	}
	return b.checked(b.page())
}

// A builder holds what all rules share.
type builder struct {
	m       Manifest
	machine Machine
	o       Options
	budget  Bytes
	reserve Bytes
}

func (b builder) checked(p Plan, err error) (Plan, error) {
	if err != nil {
		return Plan{}, err
	}
	p.Mode, p.Budget, p.Reserve = b.o.Mode, b.budget, b.reserve
	if err := p.Check(b.m); err != nil {
		return Plan{}, fmt.Errorf("plan %s: %w", b.m.Model, err)
	}
	return p, nil
}

// onTouch is plan 0, for the recorded forward: units are fetched when they are touched, and the oldest goes.
func (b builder) onTouch() (Plan, error) {
	p := Plan{Bottleneck: BoundUnknown}
	if biggest := b.largest(); biggest.Bytes > b.budget {
		return Plan{}, b.tooSmall(biggest.Bytes, "the largest page, "+biggest.Path)
	}
	for i, u := range b.m.Units {
		p.Pages = append(p.Pages, Page{Units: []int{i}, Bytes: u.Bytes, Placement: Streamed})
	}
	return p, nil
}

func (b builder) largest() Unit {
	return slices.MaxFunc(b.m.Units, func(x, y Unit) int { return cmp.Compare(x.Bytes, y.Bytes) })
}

func (b builder) tooSmall(need Bytes, what string) error {
	return &TooSmallError{Budget: b.budget, Need: need, Reserve: b.reserve, What: what}
}

// page plans the mode page from a recording.
func (b builder) page() (Plan, error) {
	drafts, total := b.group()
	if total <= b.budget {
		p, err := b.finish(b.assemble(drafts, all(len(drafts)), 0))
		p.Bound = Bound(b.m, b.machine, b.budget)
		return p, err
	}
	must, together, err := b.least(drafts)
	if err != nil {
		return Plan{}, err
	}
	var best Plan
	for _, factor := range arenaFactors {
		arena := min(together*factor/2, b.budget-must)
		for _, pick := range []rule{even, front, back} {
			candidate, err := b.finish(b.assemble(drafts, pick(drafts, b.budget-must-arena), arena))
			if err != nil {
				return Plan{}, err
			}
			if best.Pages == nil || better(candidate, best) {
				best = candidate
			}
		}
	}
	best.Bound = Bound(b.m, b.machine, b.budget)
	return best, nil
}

// group makes the pages of a recording and sums them up.
func (b builder) group() ([]draft, Bytes) {
	target := pageSize(b.m.Weights()-b.budget, b.budget, b.machine.Link)
	drafts := newGrouping(b.m, target, b.o.MaxLayerSize).drafts()
	var total Bytes
	for _, d := range drafts {
		total += d.bytes
	}
	return drafts, total
}

// least returns the bytes of what must be resident and of the most that the others need at the same time, which are on the
// device at once in any plan.
func (b builder) least(drafts []draft) (must, together Bytes, err error) {
	var stay []string
	for _, d := range drafts {
		if d.stays {
			must += d.bytes
			stay = append(stay, b.m.Units[d.units[0]].Path)
		}
	}
	together, who := b.together(drafts)
	if must+together <= b.budget {
		return must, together, nil
	}
	what := "what must stay resident because it is read over many steps, " + few(stay)
	if together > 0 {
		what = "the largest page, " + who
		if must > 0 {
			what += ", with what must stay resident because it is read over many steps, " + few(stay) + ","
		}
	}
	return 0, 0, b.tooSmall(must+together, what)
}

// together is the most bytes that pages which may stream need at the same time, and the first unit among them.
func (b builder) together(drafts []draft) (most Bytes, who string) {
	p := b.assemble(drafts, make([]bool, len(drafts)), 0)
	streamed := make([]visit, len(p.Copies))
	for i, c := range p.Copies {
		streamed[i] = visit{Use{c.First, c.Last}, c.Page}
	}
	for _, c := range clusters(p.Pages, streamed) {
		if c.bytes > most {
			most, who = c.bytes, b.m.Units[p.Pages[streamed[c.from].of].Units[0]].Path
		}
	}
	return most, who
}

// few names the first of some paths.
func few(paths []string) string {
	if len(paths) > 3 {
		return fmt.Sprintf("%s, %s, %s and %d more", paths[0], paths[1], paths[2], len(paths)-3)
	}
	return fmt.Sprint(paths)
}

// assemble makes a plan of pages, residents and an arena.
func (b builder) assemble(drafts []draft, resident []bool, arena Bytes) Plan {
	p := Plan{Mode: ModePage}
	var streamed []visit
	for i, d := range drafts {
		page := Page{Units: d.units, Bytes: d.bytes, Placement: Streamed}
		if resident[i] || d.stays {
			page.Placement = Resident
			p.Resident += d.bytes
		} else {
			for _, use := range d.uses {
				streamed = append(streamed, visit{use, i})
			}
		}
		p.Pages = append(p.Pages, page)
	}
	sortVisits(streamed)
	p.Copies, p.Arena = layRing(p.Pages, streamed, arena)
	p.Eviction = evictionOrder(p.Pages)
	p.Pages = append(p.Pages, unread(b.m)...)
	return p
}

// finish evaluates a plan.
func (b builder) finish(p Plan) (Plan, error) {
	if p.Resident+p.Arena > b.budget {
		return Plan{}, fmt.Errorf("residents of %v and an arena of %v exceed %v", p.Resident, p.Arena, b.budget)
	}
	timeline, err := Evaluate(b.m, p, b.machine)
	if err != nil {
		return Plan{}, err
	}
	p.Period = timeline.Period
	p.Bottleneck = b.bottleneck(p)
	return p, nil
}

// bottleneck names the engine that sets the period, within a twentieth.
func (b builder) bottleneck(p Plan) Bottleneck {
	var compute, link Nanoseconds
	for _, s := range b.m.Steps {
		compute += s.Compute
	}
	for _, c := range p.Copies {
		link += b.machine.Link.Transfer(p.Pages[c.Page].Bytes)
	}
	switch slack := p.Period / 20; {
	case compute == 0 && link == 0:
		return BoundUnknown
	case compute >= p.Period-slack:
		return BoundByCompute
	case link >= p.Period-slack:
		return BoundByLink
	}
	return BoundByMemory
}

// better compares two plans: by period, and among equals by memory and then by traffic.
func better(a, b Plan) bool {
	if slower := max(a.Period, b.Period) - min(a.Period, b.Period); slower > min(a.Period, b.Period)/tie {
		return a.Period < b.Period
	}
	if memory := (a.Resident + a.Arena) - (b.Resident + b.Arena); memory != 0 {
		return memory < 0
	}
	return len(a.Copies) < len(b.Copies)
}
