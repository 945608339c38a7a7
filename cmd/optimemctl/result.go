package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/optimem/optimem/internal/report"
	"github.com/optimem/optimem/planner"
)

// The values of an outcome's Equal.
const (
	equalYes = "equal"
	equalNo  = "different"
)

// A result is what came out of one session, as --json prints it. Sizes are bytes; times are nanoseconds, null where they
// are not known.
type result struct {
	Model           string        `json:"model"`
	Mode            string        `json:"mode"`
	Device          string        `json:"device"` // PyTorch's type of device
	DeviceIndex     uint64        `json:"device_index"`
	DeviceName      string        `json:"device_name"`
	DeviceBytes     planner.Bytes `json:"device_bytes"`
	Simulated       bool          `json:"simulated"`
	WeightsBytes    planner.Bytes `json:"weights_bytes"`
	BudgetBytes     planner.Bytes `json:"budget_bytes"`
	ReserveBytes    planner.Bytes `json:"reserve_bytes"`
	Pages           int           `json:"pages"`
	ResidentPages   int           `json:"resident_pages"`
	StreamedPages   int           `json:"streamed_pages"`
	CPUPages        int           `json:"cpu_pages"`
	UnreadPages     int           `json:"unread_pages"`
	ResidentBytes   planner.Bytes `json:"resident_bytes"`
	ArenaBytes      planner.Bytes `json:"arena_bytes"`
	Forwards        uint64        `json:"forwards"`
	PeriodNS        *uint64       `json:"period_ns"`
	PlainPeriodNS   *uint64       `json:"plain_period_ns"`
	BoundNS         *uint64       `json:"bound_ns"`
	PredictedNS     *uint64       `json:"predicted_ns"`
	Bottleneck      string        `json:"bottleneck"`
	ActivationBytes planner.Bytes `json:"activation_bytes"`
	DevicePeakBytes planner.Bytes `json:"device_peak_bytes"`
	PinnedBytes     planner.Bytes `json:"pinned_bytes"`
	H2DBytes        planner.Bytes `json:"h2d_bytes"`
	Misses          uint64        `json:"misses"`
	Equal           *bool         `json:"equal"` // null where it was not compared
	PlanVersion     int           `json:"plan_version"`
	Certificate     string        `json:"certificate"`
	StallNS         []uint64      `json:"stall_ns"` // measured, per page of the plan; empty where nothing was measured
	Notes           []string      `json:"notes"`
	documents

	placed map[planner.Placement]int // pages of the plan
}

func newResult(r record, request runRequest) result {
	planned := r.inForce()
	plan := planned.Plan
	device := r.opened.Hello.Device
	out := result{
		Model: request.nameOf(r.manifest), Mode: cmp.Or(string(plan.Mode), request.flags.mode),
		Device: clean(device.Kind), DeviceIndex: device.Index, DeviceName: clean(device.Name),
		DeviceBytes: planner.Bytes(device.TotalBytes), Simulated: r.opened.Hello.Device.Simulated,
		WeightsBytes: planner.Bytes(r.manifest.WeightsBytes), BudgetBytes: plan.Budget, ReserveBytes: plan.Reserve,
		ResidentBytes: plan.Resident, ArenaBytes: plan.Arena,
		Forwards: max(r.report.Forwards, r.outcome.Forwards),
		PeriodNS: known(r.report.PeriodNS), PlainPeriodNS: known(r.outcome.PlainPeriodNS),
		BoundNS: known(uint64(r.bound())), PredictedNS: known(uint64(plan.Period)),
		Bottleneck:      cmp.Or(string(plan.Bottleneck), string(planner.BoundUnknown)),
		ActivationBytes: planner.Bytes(r.report.ActivationBytes), DevicePeakBytes: planner.Bytes(r.report.DevicePeakBytes),
		PinnedBytes: planner.Bytes(r.report.PinnedBytes), H2DBytes: planner.Bytes(r.report.H2DBytes), Misses: r.report.Misses,
		Equal: truth(r.outcome.Equal), PlanVersion: plan.Version, StallNS: append([]uint64{}, r.report.StallNS...), Notes: []string{},
	}
	out.countPages(plan)
	out.Certificate = out.subject(plan, planned.Basis.Manifest, planned.Basis.Machine).Certificate().String()
	out.documents = newDocuments(planned, request.flags.json)
	for _, note := range r.outcome.Notes {
		out.Notes = append(out.Notes, clean(note))
	}
	return out
}

// time64 is a time that may not be known, which is 0 then.
func time64(ns *uint64) planner.Nanoseconds {
	if ns == nil {
		return 0
	}
	return planner.Nanoseconds(*ns)
}

// subject is what a report and a trace tell of.
func (r *result) subject(plan planner.Plan, m planner.Manifest, machine planner.Machine) report.Subject {
	run := &report.Run{
		Forwards: r.Forwards, Period: time64(r.PeriodNS), Plain: time64(r.PlainPeriodNS), Bound: time64(r.BoundNS),
		Peak: r.DevicePeakBytes, Moved: r.H2DBytes, Equal: r.Equal, Notes: r.Notes,
	}
	for _, stall := range r.StallNS {
		run.Stalls = append(run.Stalls, time64(&stall))
	}
	return report.Subject{
		Model: r.Model, Device: cmp.Or(r.DeviceName, r.Device), Simulated: r.Simulated, Manifest: m, Machine: machine, Plan: plan, Run: run,
	}
}

func (r *result) countPages(plan planner.Plan) {
	r.Pages, r.placed = len(plan.Pages), map[planner.Placement]int{}
	for _, page := range plan.Pages {
		r.placed[page.Placement]++
	}
	r.ResidentPages, r.StreamedPages = r.placed[planner.Resident], r.placed[planner.Streamed]
	r.CPUPages, r.UnreadPages = r.placed[planner.OnCPU], r.placed[planner.Unread]
}

// known is nil for a time that nobody knows.
func known(ns uint64) *uint64 {
	if ns == 0 {
		return nil
	}
	return &ns
}

func truth(equal string) *bool {
	yes := equal == equalYes
	if !yes && equal != equalNo {
		return nil
	}
	return &yes
}

// clean leaves out of a foreign text what would move a terminal's cursor or turn the direction of the text around it.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// printJSON prints one object: the result of a model; of a script the result of its only session, or all of them.
func printJSON(w io.Writer, t target, results []result) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if len(results) == 1 {
		return encoder.Encode(results[0])
	}
	return encoder.Encode(map[string][]result{"sessions": results})
}

// printText prints results for people.
func printText(w io.Writer, t target, results []result) error {
	if len(results) == 0 {
		_, err := fmt.Fprintf(w, "%s ended without calling optimem.page or optimem.chunk: nothing was paged.\n", t.text)
		return err
	}
	for i, r := range results {
		if i > 0 {
			_, _ = fmt.Fprintln(w)
		}
		if err := r.print(w); err != nil {
			return err
		}
	}
	return nil
}

// print prints one fact a line.
func (r result) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", name, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n\t"))
	}
	line("model", "%s", r.Model)
	line("device", "%s", r.deviceText())
	line("mode", "%s", r.modeText())
	if r.Pages > 0 {
		line("weights", "%v", r.WeightsBytes)
		line("budget", "%v for weights, and %v reserved for all else", r.BudgetBytes, r.ReserveBytes)
		line("pages", "%s", r.pagesText())
	} else {
		line("pages", "none: the model runs as it is")
	}
	if r.ArenaBytes > 0 {
		line("arena", "%v that streamed pages take turns in", r.ArenaBytes)
	}
	line("forwards", "%d", r.Forwards)
	line("time", "%s", r.timeText())
	if r.Pages > 0 {
		line("device peak", "%v", r.DevicePeakBytes)
		line("moved", "%s", r.movedText())
	}
	line("result", "%s", r.equalText())
	for _, note := range r.Notes {
		line("note", "%s", note)
	}
	return table.Flush()
}

func (r result) deviceText() string {
	text := r.Device
	if r.DeviceIndex > 0 {
		text += fmt.Sprintf(":%d", r.DeviceIndex)
	}
	if r.DeviceName != "" && r.DeviceName != r.Device {
		text += ", " + r.DeviceName
	}
	if r.DeviceBytes > 0 {
		text += fmt.Sprintf(", %v", r.DeviceBytes)
	}
	if r.Simulated {
		text += " (simulated)"
	}
	return text
}

func (r result) modeText() string {
	if meaning := planner.Mode(r.Mode).Meaning(); meaning != "" {
		return r.Mode + ": " + meaning
	}
	return r.Mode
}

// pagesText counts the pages of every placement. Residents and streamed pages are named also where there are none.
func (r result) pagesText() string {
	var parts []string
	for _, p := range planner.Placements() {
		part := fmt.Sprintf("%d %s", r.placed[p], p.Phrase())
		if p.Stays() {
			part += fmt.Sprintf(" with %v", r.ResidentBytes)
		}
		if r.placed[p] > 0 || p.Stays() || p.Streams() {
			parts = append(parts, part)
		}
	}
	return fmt.Sprintf("%d (%s)", r.Pages, strings.Join(parts, ", "))
}

// timeText puts the time of a forward beside what it can be compared with.
func (r result) timeText() string {
	text := "not measured under a plan"
	if r.PeriodNS != nil {
		text = duration(r.PeriodNS) + " per forward"
	}
	if r.Simulated {
		text += ", simulated"
	}
	if r.Pages > 0 && (r.PeriodNS != nil || r.PredictedNS != nil) {
		text = r.Certificate
	}
	text += "\nplain model " + duration(r.PlainPeriodNS)
	if r.Pages == 0 {
		return text
	}
	text += fmt.Sprintf(", predicted %s, bound %s", duration(r.PredictedNS), duration(r.BoundNS))
	return text + "\n" + r.bottleneckText()
}

func (r result) bottleneckText() string {
	switch planner.Bottleneck(r.Bottleneck) {
	case planner.BoundByCompute:
		return "the device computes without waiting"
	case planner.BoundByLink:
		return "the link is the bottleneck: copies take longer than the computation"
	case planner.BoundByMemory:
		return "device memory is the bottleneck: more of it would shorten the forward"
	case planner.BoundByCPU:
		return "the CPU is the bottleneck"
	}
	return "the bottleneck is not known"
}

func (r result) movedText() string {
	text := fmt.Sprintf("%v over the link", r.H2DBytes)
	if r.Misses > 0 {
		text += fmt.Sprintf("; %d pages came outside the plan", r.Misses)
	}
	return text
}

func (r result) equalText() string {
	switch {
	case r.Equal == nil:
		return "not compared"
	case *r.Equal:
		return "equal to the plain model, bit for bit"
	}
	return "differs from the plain model: do not use it"
}

// duration prints a time that may not be known.
func duration(ns *uint64) string {
	if ns == nil {
		return "unknown"
	}
	return report.Duration(time64(ns))
}
