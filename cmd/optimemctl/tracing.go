package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/optimem/optimem/internal/laps"
	"github.com/optimem/optimem/internal/report"
	"github.com/optimem/optimem/internal/trace"
)

// trace writes the trace of all sessions that had a plan, where one is wanted.
func (e ending) trace(request runRequest, w io.Writer) error {
	if request.flags.trace == "" {
		return nil
	}
	var subjects []report.Subject
	for _, r := range e.records {
		if planned := r.inForce(); len(planned.Plan.Pages) > 0 {
			told := newResult(r, request)
			subjects = append(subjects, told.subject(planned.Plan, planned.Basis.Manifest, planned.Basis.Machine))
		}
	}
	if len(subjects) == 0 {
		_, _ = fmt.Fprintf(w, "no trace: nothing was paged, so %s is not written\n", request.flags.trace)
		return nil
	}
	if err := writeTrace(request.flags.trace, subjects); err != nil {
		return fault("--trace: %w", err)
	}
	return nil
}

// writeTrace writes a trace of subjects into a file.
func writeTrace(path string, subjects []report.Subject) error {
	processes := make([]trace.Process, len(subjects))
	for i, s := range subjects {
		l, err := laps.Of(s.Manifest, s.Plan, s.Machine)
		if err != nil {
			return err
		}
		processes[i] = trace.Process{Name: s.Model, Manifest: s.Manifest, Plan: s.Plan, Laps: l, Facts: traceFacts(s)}
		if s.Run != nil {
			processes[i].Stalls = s.Run.Stalls
		}
	}
	var out bytes.Buffer
	if err := trace.Write(&out, processes); err != nil {
		return err
	}
	return replaceFile(path, out.Bytes())
}

// traceFacts are what a trace tells beside its events.
func traceFacts(s report.Subject) map[string]any {
	facts := map[string]any{
		"device": clean(s.Device), "simulated": s.Simulated, "mode": s.Plan.Mode, "budget_bytes": s.Plan.Budget,
		"bound_ns": s.Certificate().Bound, "certificate": s.Certificate().String(),
	}
	if s.Run != nil && s.Run.Period > 0 {
		facts["measured_period_ns"] = s.Run.Period
	}
	return facts
}
