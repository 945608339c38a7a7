package contract

import (
	"cmp"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/optimem/optimem/internal/strict"
	"github.com/optimem/optimem/planner"
)

// An Answer is a plan, and the manifest, the machine and the wishes that it was made from.
type Answer struct {
	Manifest Manifest
	Machine  Machine // its budget is that of the plan, its link the one that the plan supposes
	Curve    []planner.Point
	Notes    []string
	Options  planner.Options // the wishes that stand nowhere else in the answer; see With
	plan     planner.Plan
}

type answerDoc struct {
	Version    *whole      `json:"version,omitzero"`
	Model      name        `json:"model"`
	Mode       name        `json:"mode"`
	Estimated  bool        `json:"estimated"`
	Period     whole       `json:"period_ns"`
	Bound      whole       `json:"bound_ns"`
	Gap        float64     `json:"gap"`
	First      whole       `json:"first_forward_ns"`
	Bottleneck name        `json:"bottleneck"`
	Weights    whole       `json:"weights_bytes"`
	Budget     whole       `json:"budget_bytes"`
	Reserve    whole       `json:"reserve_bytes"`
	Arena      whole       `json:"arena_bytes"`
	Resident   whole       `json:"resident_bytes"`
	Laps       *whole      `json:"laps,omitzero"`
	Pages      []pageDoc   `json:"pages"`
	Copies     []copyDoc   `json:"copies"`
	Fill       [][]whole   `json:"fill"`
	Eviction   []whole     `json:"eviction"`
	Curve      []pointDoc  `json:"curve"`
	Notes      []name      `json:"notes"`
	Manifest   manifestDoc `json:"manifest"`
	Machine    machineDoc  `json:"machine"`
	Options    *wishesDoc  `json:"options,omitzero"`
}

// wishesDoc has the options of a request that an answer repeats.
type wishesDoc struct {
	PagesAsGiven bool    `json:"pages_as_given,omitzero"`
	MaxLayerSize *whole  `json:"max_layer_size,omitzero"`
	MaxCapacity  *amount `json:"max_capacity,omitzero"`
}

type pageDoc struct {
	Units     []ID  `json:"units"`
	Bytes     whole `json:"bytes"`
	Placement name  `json:"placement"`
}

type copyDoc struct {
	Page   whole `json:"page"`
	Offset whole `json:"offset"`
	First  whole `json:"first"`
	Last   whole `json:"last"`
	After  whole `json:"after"`
}

type pointDoc struct {
	Budget  whole `json:"budget_bytes"`
	Period  whole `json:"period_ns"`
	Bound   whole `json:"bound_ns"`
	Missing whole `json:"missing_bytes"`
}

// NewAnswer makes the answer of a plan. The version of the plan within its session is left out.
func NewAnswer(m Manifest, machine Machine, p planner.Plan, curve ...planner.Point) Answer {
	machine.Budget = p.Budget
	p.Version, p.Laps = 0, max(1, p.Laps)
	return Answer{Manifest: m, Machine: machine, Curve: curve, plan: p}
}

// With is the answer with the wishes that shape pages. Mode, budget and link stand elsewhere in it.
func (a Answer) With(o planner.Options) Answer {
	a.Options = planner.Options{PagesAsGiven: o.PagesAsGiven, MaxLayerSize: o.MaxLayerSize, MaxCapacity: o.MaxCapacity}
	return a
}

// Plan is the plan. The error is planner.ErrInvalid where the planner refuses the manifest or the machine, or where the plan
// breaks a promise for them.
func (a Answer) Plan() (planner.Plan, error) {
	if err := planner.Check(a.Manifest.Manifest, a.Machine.Machine); err != nil {
		return planner.Plan{}, err
	}
	if err := a.plan.Check(a.Manifest.Manifest); err != nil {
		return planner.Plan{}, err
	}
	return a.plan, nil
}

// Encode writes the answer with one page, copy, step or unit per line.
func (a Answer) Encode() ([]byte, error) {
	text, err := json.Marshal(a.doc(), json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write the answer for %s: %w", a.Manifest.Model, err)
	}
	return layout(text)
}

func (a Answer) doc() answerDoc {
	p := a.plan
	d := answerDoc{
		Version: this(int64(Version)), Model: name(a.Manifest.Model), Mode: name(p.Mode), Estimated: a.Manifest.Estimated,
		Period: whole(p.Period), Bound: whole(p.Bound), Gap: p.Gap(), First: whole(p.First),
		Bottleneck: name(p.Bottleneck), Weights: whole(a.Manifest.Weights()), Budget: whole(p.Budget), Reserve: whole(p.Reserve),
		Arena: whole(p.Arena), Resident: whole(p.Resident), Laps: this(int64(p.Laps)), Eviction: wholes(p.Eviction),
		Notes: names(a.Notes), Manifest: a.Manifest.doc(), Machine: a.Machine.doc(), Options: wishes(a.Options),
	}
	for _, page := range p.Pages {
		d.Pages = append(d.Pages, a.page(page))
	}
	for _, c := range p.Copies {
		d.Copies = append(d.Copies, copyDoc{whole(c.Page), whole(c.Offset), whole(c.First), whole(c.Last), whole(c.After)})
	}
	for _, group := range p.Fill {
		d.Fill = append(d.Fill, wholes(group))
	}
	for _, point := range a.Curve {
		d.Curve = append(d.Curve, pointDoc{whole(point.Budget), whole(point.Period), whole(point.Bound), whole(point.Missing)})
	}
	return d
}

// wishes are nil where there are none.
func wishes(o planner.Options) *wishesDoc {
	if o == (planner.Options{}) {
		return nil
	}
	d := wishesDoc{PagesAsGiven: o.PagesAsGiven, MaxLayerSize: some(planner.Bytes(o.MaxLayerSize))}
	if text := amount(o.MaxCapacity.String()); text != "" {
		d.MaxCapacity = &text
	}
	return &d
}

// options are the wishes in the document.
func (d *wishesDoc) options() (o planner.Options, err error) {
	if d == nil {
		return o, nil
	}
	o.PagesAsGiven, o.MaxLayerSize = d.PagesAsGiven, or(d.MaxLayerSize, 0)
	if err := parse(d.MaxCapacity, planner.ParseCapacity, &o.MaxCapacity); err != nil {
		return o, strict.Within("max_capacity", asFault(err))
	}
	return o, nil
}

func (a Answer) page(p planner.Page) pageDoc {
	d := pageDoc{Bytes: whole(p.Bytes), Placement: name(p.Placement.String())}
	for _, u := range p.Units {
		d.Units = append(d.Units, a.Manifest.IDs[u])
	}
	return d
}

// ReadAnswer reads an answer. An *Error names the field that is wrong. It does not check the promises of the plan: Answer.Plan
// does.
func ReadAnswer(text []byte) (Answer, error) {
	var doc answerDoc
	if err := read(text, &doc); err != nil {
		return Answer{}, err
	}
	return doc.answer()
}

func (d answerDoc) answer() (a Answer, err error) {
	if err := checkVersion(d.Version); err != nil {
		return a, err
	}
	if a.Manifest, err = d.Manifest.manifest(); err != nil {
		return a, strict.Within("manifest", err)
	}
	if a.Machine, err = d.Machine.machine(); err != nil {
		return a, strict.Within("machine", err)
	}
	if a.Options, err = d.Options.options(); err != nil {
		return a, strict.Within("options", err)
	}
	a.Manifest.Estimated = a.Manifest.Estimated || d.Estimated
	a.Manifest.Model = cmp.Or(a.Manifest.Model, string(d.Model))
	a.Notes = texts(d.Notes)
	for _, p := range d.Curve {
		a.Curve = append(a.Curve, planner.Point{
			Budget: planner.Bytes(p.Budget), Period: planner.Nanoseconds(p.Period), Bound: planner.Nanoseconds(p.Bound),
			Missing: planner.Bytes(p.Missing),
		})
	}
	a.plan, err = d.plan(a.Manifest.IDs)
	return a, err
}

func (d answerDoc) plan(ids []ID) (planner.Plan, error) {
	p := planner.Plan{
		Arena: planner.Bytes(d.Arena), Resident: planner.Bytes(d.Resident), Budget: planner.Bytes(d.Budget),
		Reserve: planner.Bytes(d.Reserve), Period: planner.Nanoseconds(d.Period), First: planner.Nanoseconds(d.First),
		Bound: planner.Nanoseconds(d.Bound), Laps: int(or(d.Laps, 1)), Eviction: ints(d.Eviction),
	}
	if p.Laps < 1 {
		return p, strict.Fault("laps", "a turn of the ring takes 1 lap or more: give how many, or leave it out for 1")
	}
	var err error
	if p.Mode, err = ParseMode(string(d.Mode)); err != nil {
		return p, strict.Within("mode", asFault(err))
	}
	if p.Bottleneck, err = one(bottlenecks, d.Bottleneck); err != nil {
		return p, strict.Within("bottleneck", err)
	}
	if p.Pages, err = d.pages(ids); err != nil {
		return p, err
	}
	for _, c := range d.Copies {
		p.Copies = append(p.Copies, planner.Copy{
			Page: int(c.Page), Offset: planner.Bytes(c.Offset), First: int(c.First), Last: int(c.Last), After: int(c.After),
		})
	}
	for _, group := range d.Fill {
		p.Fill = append(p.Fill, ints(group))
	}
	return p, nil
}

func (d answerDoc) pages(ids []ID) (pages []planner.Page, err error) {
	index := map[ID]int{}
	for i, id := range ids {
		index[id] = i
	}
	for i, page := range d.Pages {
		out := planner.Page{Bytes: planner.Bytes(page.Bytes)}
		if out.Placement, err = planner.ParsePlacement(strict.Shown(string(page.Placement))); err != nil {
			return nil, strict.Within(fmt.Sprintf("pages[%d].placement", i), asFault(err))
		}
		for j, id := range page.Units {
			at, ok := index[id]
			if !ok {
				return nil, strict.Fault(fmt.Sprintf("pages[%d].units[%d]", i, j), "the manifest has no unit %s", strict.Shown(id.String()))
			}
			out.Units = append(out.Units, at)
		}
		pages = append(pages, out)
	}
	return pages, nil
}

var bottlenecks = []planner.Bottleneck{
	planner.BoundByCompute, planner.BoundByLink, planner.BoundByMemory, planner.BoundByCPU, planner.BoundUnknown,
}

// one finds a word in a list of known words.
func one[W ~string](words []W, text name) (W, error) {
	for _, w := range words {
		if string(w) == string(text) {
			return w, nil
		}
	}
	return "", strict.Fault("", "%q is not known: give one of %v", strict.Shown(string(text)), words)
}
