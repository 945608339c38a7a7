// Package trace writes what a plan's engines do as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open: the
// JSON of the Trace Event Format, whose times are microseconds.
package trace

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/optimem/optimem/internal/label"
	"github.com/optimem/optimem/internal/laps"
	"github.com/optimem/optimem/planner"
)

// longest is the length of a name in a trace.
const longest = 200

// A Process is one model under one plan. In a trace it stands as a process of its own, whose threads are the engines.
type Process struct {
	Name     string
	Manifest planner.Manifest
	Plan     planner.Plan
	Laps     laps.Laps
	Stalls   []planner.Nanoseconds // measured, per page of the plan; nil where nothing was measured
	Facts    map[string]any        // what else is known, such as the measured period
}

// An event is one of the format's. ph is X for a slice, C for a counter and M for a name.
type event struct {
	Phase    string         `json:"ph"`
	Name     string         `json:"name"`
	Category string         `json:"cat,omitempty"`
	Time     micros         `json:"ts"`
	Duration *micros        `json:"dur,omitempty"`
	Process  int            `json:"pid"`
	Thread   int            `json:"tid"`
	Args     map[string]any `json:"args,omitempty"`
}

// micros is a time that is written in microseconds, to the nanosecond.
type micros planner.Nanoseconds

// MarshalJSON implements json.Marshaler.
func (m micros) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%d.%03d", m/1000, m%1000), nil
}

// Write writes a trace of two laps of every process.
func Write(w io.Writer, processes []Process) error {
	out := bufio.NewWriter(w)
	facts, err := json.Marshal(heading(processes))
	if err != nil {
		return fmt.Errorf("write the trace's facts: %w", err)
	}
	_, _ = fmt.Fprintf(out, "{\"displayTimeUnit\":\"ns\",\"otherData\":%s,\"traceEvents\":[", facts)
	for i, e := range events(processes) {
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("write event %d of the trace, %s: %w", i, e.Name, err)
		}
		if i > 0 {
			_ = out.WriteByte(',')
		}
		_ = out.WriteByte('\n')
		_, _ = out.Write(line)
	}
	_, _ = out.WriteString("\n]}\n")
	return out.Flush() // a bufio.Writer keeps its first error
}

// heading is what the trace says beside the events.
func heading(processes []Process) map[string]any {
	told := make([]map[string]any, len(processes))
	for i, p := range processes {
		told[i] = map[string]any{
			"pid": i + 1, "model": label.Short(p.Name, longest), "predicted_period_ns": p.Laps.Timeline.Period, "two_laps_ns": p.Laps.Window,
		}
		if p.Stalls != nil {
			told[i]["measured_stall_ns_per_page"] = p.Stalls
		}
		for key, value := range p.Facts {
			told[i][key] = value
		}
	}
	return map[string]any{
		"what":      "two laps as the plan predicts them, one thread an engine; what was measured is in otherData and in the copies' args",
		"processes": told,
	}
}

// events are those of all processes in order of time, names first.
func events(processes []Process) (all []event) {
	for i, p := range processes {
		two := p.Laps.Slices()
		start := begin(two)
		all = append(all, p.names(i+1, two)...)
		all = append(all, p.slices(i+1, two, start)...)
		all = append(all, p.counters(i+1, start)...)
	}
	slices.SortStableFunc(all, func(a, b event) int { return cmp.Compare(a.Time, b.Time) })
	return all
}

// names names a process and its threads.
func (p Process) names(pid int, two []laps.Slice) []event {
	name := func(kind string, tid int, args map[string]any) event {
		return event{Phase: "M", Name: kind, Process: pid, Thread: tid, Args: args}
	}
	all := []event{
		name("process_name", 0, map[string]any{"name": label.Short(p.Name, longest)}),
		name("process_sort_index", 0, map[string]any{"sort_index": pid}),
	}
	for i, engine := range laps.Engines {
		if slices.ContainsFunc(two, func(s laps.Slice) bool { return s.Engine == engine }) {
			all = append(all, name("thread_name", i+1, map[string]any{"name": threads[engine]}),
				name("thread_sort_index", i+1, map[string]any{"sort_index": i + 1}))
		}
	}
	return all
}

// threads name the engines.
var threads = map[laps.Engine]string{
	laps.Copy: "copy", laps.Device: "compute", laps.CPU: "CPU", laps.Crossing: "crossing",
}

// begin is the time in the laps at which the trace begins: a copy may run ahead of the first lap.
func begin(two []laps.Slice) planner.Nanoseconds {
	if len(two) == 0 {
		return 0
	}
	return min(0, two[0].Start)
}

func (p Process) slices(pid int, two []laps.Slice, start planner.Nanoseconds) (all []event) {
	at := label.Steps(p.Manifest, longest)
	for _, s := range two {
		e := event{Phase: "X", Time: micros(s.Start - start), Process: pid, Thread: 1 + slices.Index(laps.Engines, s.Engine)}
		lasts := micros(s.End - s.Start)
		e.Duration = &lasts
		e.Category, e.Name, e.Args = p.describe(s, at)
		e.Args["lap"] = s.Lap + 1
		all = append(all, e)
	}
	return all
}

// describe is a slice's category, name and arguments.
func (p Process) describe(s laps.Slice, at []string) (category, name string, args map[string]any) {
	switch {
	case s.Stall:
		return "stall", "stall", p.page(s.Copy)
	case s.Engine == laps.Copy:
		args := p.page(s.Copy)
		return "copy", args["page_name"].(string), args
	case s.Engine == laps.Crossing && s.Step < 0:
		return "crossing", "result", map[string]any{}
	case s.Engine == laps.Crossing:
		return "crossing", "activations", map[string]any{"before_step": s.Step, "bytes": p.Manifest.Steps[s.Step].Crossing}
	}
	return "step", at[s.Step], map[string]any{"step": s.Step}
}

// page tells of the page that a copy brings.
func (p Process) page(copied int) map[string]any {
	c := p.Plan.Copies[copied]
	page := p.Plan.Pages[c.Page]
	args := map[string]any{
		"page": c.Page, "page_name": label.Page(p.Manifest, page, longest), "bytes": page.Bytes, "offset": c.Offset, "first_step": c.First, "last_step": c.Last,
	}
	if c.Page < len(p.Stalls) {
		args["measured_stall_us"] = micros(p.Stalls[c.Page])
	}
	return args
}

// counters are the device bytes of weights.
func (p Process) counters(pid int, start planner.Nanoseconds) (all []event) {
	if !p.Laps.Known() {
		return nil
	}
	for _, level := range p.Laps.Memory {
		all = append(all, event{
			Phase: "C", Name: "weights on the device", Time: micros(level.At - start), Process: pid,
			Args: map[string]any{"resident": p.Laps.Resident, "arena": level.Bytes - p.Laps.Resident},
		})
	}
	return all
}
