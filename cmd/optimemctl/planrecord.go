package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/optimem/optimem/controller"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/contract"
)

// record runs one forward of a model, within what its device has free, and makes a request of what was learnt.
//
// Times on the CPU come from a forward of their own, in which the CPU computes: only modes that use it need one.
func (q *question) record(ctx context.Context, std stdio) (r contract.Request, err error) {
	run, err := q.runRequest()
	if err != nil {
		return r, err
	}
	learnt, err := run.learn(ctx, planner.ModePage, std)
	if err != nil {
		return r, err
	}
	manifest := learnt.plan.Basis.Manifest
	q.simulated = learnt.opened.Hello.Device.Simulated
	if q.said.Mode.UsesCPU() {
		run.again = true
		onCPU, err := run.learn(ctx, planner.ModeChunk, std)
		if err != nil {
			return r, err
		}
		if manifest, err = withCPU(manifest, onCPU.plan.Basis.Manifest); err != nil {
			return r, badInput("%s: %w", q.input.name, err)
		}
	}
	manifest.Model = strings.ToValidUTF8(q.input.name, "?")
	r.Manifest = contract.FromPlanner(manifest)
	r.Manifest.Notes = []string{learnt.note()}
	r.Machine = q.within(contract.Machine{Machine: learnt.plan.Basis.Machine})
	return r, nil
}

// runRequest is the run of two forwards, the least there is, of which the first is waited for.
func (q question) runRequest() (runRequest, error) {
	target, err := parseTarget(q.input.path)
	run := runRequest{target: target, flags: q.flags.runFlags, recording: true}
	run.flags.forwards = 2
	return run, err
}

// A lesson is what a recording taught.
type lesson struct {
	plan   controller.Planned
	opened controller.Opened
}

// learn records a forward in one mode.
func (r runRequest) learn(ctx context.Context, mode planner.Mode, std stdio) (lesson, error) {
	r.flags.mode = string(mode)
	end, err := carryOut(ctx, r, std)
	if err != nil {
		return lesson{}, err
	}
	for _, record := range end.records {
		if plan := record.plans[record.latest]; plan.Basis.Manifest.Recorded {
			return lesson{plan, record.opened}, nil
		}
	}
	if verdict := end.judge(r.target); verdict != nil {
		return lesson{}, verdict
	}
	return lesson{}, badInput("%s was not planned on %s, where it runs as it is: name an accelerator with --device, or sim", r.target.text, r.flags.device)
}

// note says where the times are from.
func (l lesson) note() string {
	device := l.opened.Hello.Device
	name := clean(cmp.Or(device.Name, device.Kind))
	if l.opened.Hello.Device.Simulated {
		return fmt.Sprintf("one forward was recorded on %s: its times are simulated, not those of a GPU", name)
	}
	return fmt.Sprintf("one forward was recorded on %s: it was the first, and later ones may be faster", name)
}

// withCPU is a manifest with the times that the same steps took on the CPU.
func withCPU(m, onCPU planner.Manifest) (planner.Manifest, error) {
	same := func(a, b planner.Unit) bool { return a.Path == b.Path && slices.Equal(a.Uses, b.Uses) }
	if len(m.Steps) != len(onCPU.Steps) || !slices.EqualFunc(m.Units, onCPU.Units, same) {
		return m, errors.New("two forwards of the model ran differently, so times on the device and on the CPU do not belong together: give --mode page")
	}
	m.Steps = slices.Clone(m.Steps)
	for i := range m.Steps {
		m.Steps[i].CPU = onCPU.Steps[i].CPU
	}
	return m, nil
}
