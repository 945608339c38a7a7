package contract

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/optimem/optimem/internal/strict"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

// A Request has all inputs of an answer.
type Request struct {
	Manifest Manifest
	Machine  Machine
	Options  Options
	Notes    []string // assumptions of the caller, repeated in the answer
}

type requestDoc struct {
	Version  *whole       `json:"version,omitzero"`
	Manifest *manifestDoc `json:"manifest,omitzero"`
	Machine  machineDoc   `json:"machine,omitzero"`
	Options  optionsDoc   `json:"options,omitzero"`
}

// Respond answers a request, text to text. An *Error names the field that is wrong. A *search.TooSmallError
// says by how many bytes the budget is too small.
func Respond(request []byte) ([]byte, error) {
	r, err := ReadRequest(request)
	if err != nil {
		return nil, err
	}
	answer, err := r.Answer()
	if err != nil {
		return nil, err
	}
	return answer.Encode()
}

// ReadRequest reads a request. An *Error names the field that is wrong.
func ReadRequest(text []byte) (Request, error) {
	var doc requestDoc
	if err := read(text, &doc); err != nil {
		return Request{}, err
	}
	return doc.request()
}

func (d requestDoc) request() (r Request, err error) {
	if err := checkVersion(d.Version); err != nil {
		return r, err
	}
	if d.Manifest == nil {
		return r, strict.Fault("manifest", "it is missing: give the model's units, {\"units\": [{\"bytes\": ..., \"compute_ns\": ...}, ...]}")
	}
	if r.Manifest, err = d.Manifest.manifest(); err != nil {
		return r, strict.Within("manifest", err)
	}
	if r.Machine, err = d.Machine.machine(); err != nil {
		return r, strict.Within("machine", err)
	}
	r.Options, err = d.Options.options()
	return r, strict.Within("options", err)
}

// Answer plans for the request. Its errors are those of Respond.
func (r Request) Answer() (Answer, error) {
	notes := slices.Concat(r.Manifest.Notes, r.Notes)
	machine, note := r.linked()
	notes = append(notes, note...)
	options, err := r.wishes()
	if err == nil {
		err = r.checkTimes(machine)
	}
	if err != nil {
		return Answer{}, err
	}
	plan, err := search.Build(r.Manifest.Manifest, machine.Machine, options)
	if err != nil {
		return Answer{}, err
	}
	points, err := r.curve(machine.Machine, options, plan)
	if err != nil {
		return Answer{}, err
	}
	answer := NewAnswer(r.Manifest, machine, plan, points...).With(options)
	answer.Notes = slices.Concat(notes, r.excess(options, plan), r.silences(options.Mode))
	return answer, answer.checkFigures()
}

// linked is the machine with a link: the wished link, else that of the machine, else the usual one.
func (r Request) linked() (m Machine, notes []string) {
	m = r.Machine
	if r.Options.Link.Rate > 0 {
		m.Link = r.Options.Link
	}
	if m.Link.Rate > 0 {
		return m, nil
	}
	m.Link, _ = ParseLink(UsualLink)
	return m, []string{fmt.Sprintf("nobody says what the link is: it is taken for %s, %s", UsualLink, LinkText(m.Link))}
}

// LinkText is a link for people: 25.0 GB/s, 10.0 us a copy.
func LinkText(l planner.Link) string {
	return fmt.Sprintf("%.1f GB/s, %v a copy", float64(l.Rate)/1e9, l.Latency)
}

// wishes are the options for the planner.
func (r Request) wishes() (planner.Options, error) {
	o := planner.Options{
		Mode: cmp.Or(r.Options.Mode, planner.ModePage), VRAM: r.Options.VRAM, PagesAsGiven: r.Options.PagesAsGiven,
		MaxLayerSize: r.Options.MaxLayerSize, MaxCapacity: r.Options.MaxCapacity,
	}
	if o.VRAM == (planner.Share{}) {
		o.Budget = r.Machine.Budget
	}
	if o.VRAM == (planner.Share{}) && o.Budget == 0 && r.Machine.Free == 0 {
		return o, strict.Fault("", "there is no budget: give vram (such as 6GiB, or 25%% of the weights), or the machine's budget_bytes")
	}
	return o, r.checkShares()
}

// checkShares wants shares of the weights that come to valid sizes.
func (r Request) checkShares() error {
	weights := r.Manifest.Weights()
	if scaled(weights, r.Options.VRAM.MilliPercent, 100_000) > largest {
		return strict.Fault("options.vram", "%v of the weights is more than 2^50 bytes (%v): give less", r.Options.VRAM, planner.Bytes(largest))
	}
	for i, share := range r.Options.Curve {
		if scaled(weights, share.MilliPercent, 100_000) > largest {
			return strict.Fault(fmt.Sprintf("options.curve[%d]", i), "%v of the weights is more than 2^50 bytes (%v): give less", share, planner.Bytes(largest))
		}
	}
	return nil
}

// around are the budgets of a curve, in percent of the budget of the plan.
var around = []int64{50, 75, 90, 100, 110, 125, 150}

// curve plans for the wished budgets, or for budgets around that of the plan. None exceeds the weights.
func (r Request) curve(machine planner.Machine, o planner.Options, p planner.Plan) ([]planner.Point, error) {
	weights := r.Manifest.Weights()
	var budgets []planner.Bytes
	for _, share := range r.Options.Curve {
		budgets = append(budgets, max(1, cmp.Or(share.Bytes, scaled(weights, share.MilliPercent, 100_000))))
	}
	if r.Options.Curve == nil {
		base := min(p.Budget, weights)
		for _, part := range around {
			budgets = append(budgets, max(1, upTo(weights, scaled(base, part, 100))))
		}
	}
	slices.Sort(budgets)
	return r.points(machine, o, p, slices.Compact(budgets))
}

// points plans for every budget except that of the plan.
func (r Request) points(machine planner.Machine, o planner.Options, p planner.Plan, budgets []planner.Bytes) ([]planner.Point, error) {
	o.VRAM = planner.Share{}
	points, failures := make([]planner.Point, len(budgets)), make([]error, len(budgets))
	parallel(len(budgets), func(i int) {
		if budgets[i] == p.Budget {
			points[i] = planner.Point{Budget: p.Budget, Period: p.Period, Bound: p.Bound}
			return
		}
		one, err := search.Curve(r.Manifest.Manifest, machine, o, budgets[i:i+1])
		if failures[i] = err; err == nil {
			points[i] = one[0]
		}
	})
	return points, errors.Join(failures...)
}

// upTo is a budget, at most the weights. A budget that is hardly less than the weights becomes the weights, since a share of a
// share is rounded.
func upTo(weights, budget planner.Bytes) planner.Bytes {
	if budget > weights-weights/1000 {
		return weights
	}
	return budget
}

// scaled is size times numerator / denominator, without overflow for sizes up to the largest.
func scaled(size planner.Bytes, numerator, denominator int64) planner.Bytes {
	n, d := planner.Bytes(numerator), planner.Bytes(denominator)
	return size/d*n + size%d*n/d
}

// excess is a note where budget and reserve exceed the free memory.
func (r Request) excess(o planner.Options, p planner.Plan) []string {
	if free := r.Machine.Free; o.Budget > 0 && free > 0 && p.Budget+p.Reserve > free {
		return []string{fmt.Sprintf("budget_bytes and the reserve, %v and %v, are more than free_bytes, the %v that the device has", p.Budget, p.Reserve, free)}
	}
	return nil
}

// silences are notes on times that are not known.
func (r Request) silences(mode planner.Mode) []string {
	var compute, cpu planner.Nanoseconds
	for _, s := range r.Manifest.Steps {
		compute, cpu = compute+s.Compute, cpu+s.CPU
	}
	var notes []string
	if compute == 0 {
		notes = append(notes, "no step has a compute time: the period is the link's part alone")
	}
	if cpu == 0 && mode.UsesCPU() {
		notes = append(notes, "no step has a time on the CPU: what computing there would cost is not known")
	}
	return notes
}
