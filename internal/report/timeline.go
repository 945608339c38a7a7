package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"

	"github.com/optimem/optimem/internal/label"
	"github.com/optimem/optimem/internal/laps"
	"github.com/optimem/optimem/planner"
)

// longest is the length of a name on the page.
const longest = 60

// A timeline is the picture of the engines.
type timeline struct {
	Known  bool
	Lanes  []lane
	Ticks  []tick
	Stalls int          // of both laps
	Second template.CSS // where the second lap starts
	Look   string       // what to look for
	Text   string       // the picture in words
}

// A tick is a place on an axis of HTML.
type tick struct {
	Left  string
	Label string
	Minor bool // left out where there is little room
}

// engineNames are what the lanes are called, and what stands in them.
var engineNames = map[laps.Engine]struct{ name, class, plural string }{
	laps.Copy:     {"Copies, RAM to card", "copy", "copies"},
	laps.Device:   {"Card computes", "compute", "steps"},
	laps.CPU:      {"CPU computes", "cpu", "steps"},
	laps.Crossing: {"Activations cross over", "crossing", "crossings"},
}

func newTimeline(s Subject, l laps.Laps) timeline {
	t := timeline{Known: l.Known(), Stalls: l.Stalls()}
	if !t.Known {
		return t
	}
	within := l.Within()
	for _, engine := range laps.Engines {
		if lane := newLane(s, l, engine, within); len(lane.Boxes) > 0 {
			t.Lanes = append(t.Lanes, lane)
		}
	}
	t.Ticks = timeTicks(l.Window)
	t.Second = template.CSS("--second:" + percent(float64(l.Second)/float64(l.Window)))
	t.Look, t.Text = t.look(), t.words(l)
	return t
}

// newLane draws what one engine does; the stalls stand in the lane of the device, which waits.
func newLane(s Subject, l laps.Laps, engine laps.Engine, within []laps.Slice) lane {
	var busy, waits []mark
	names := label.Steps(s.Manifest, longest)
	for _, slice := range within {
		switch {
		case slice.Engine != engine:
		case slice.Stall:
			waits = append(waits, s.mark(slice, l.Window, names))
		default:
			busy = append(busy, s.mark(slice, l.Window, names))
		}
	}
	words := engineNames[engine]
	out := lane{Name: words.name, Note: share(filled(busy)) + " busy", Boxes: boxes(words.plural, busy)}
	if len(waits) > 0 {
		out.Note += ", " + share(filled(waits)) + " waiting"
		out.Boxes = append(out.Boxes, boxes("waits", waits)...)
	}
	return out
}

// mark is a slice with what there is to say of it.
func (s Subject) mark(slice laps.Slice, window planner.Nanoseconds, names []string) mark {
	m := mark{from: float64(slice.Start) / float64(window), to: float64(slice.End) / float64(window), class: engineNames[slice.Engine].class}
	when := fmt.Sprintf("%s to %s, %s long", Duration(slice.Start), Duration(slice.End), Duration(slice.End-slice.Start))
	switch {
	case slice.Stall:
		m.name, m.class = s.pageName(slice.Copy), "stall"
		m.tip = fmt.Sprintf("The card waits for %s: %s", m.name, when)
	case slice.Engine == laps.Copy:
		m.name = s.pageName(slice.Copy)
		m.bytes = s.Plan.Pages[s.Plan.Copies[slice.Copy].Page].Bytes
		m.tip = fmt.Sprintf("Copy of %s, %v: %s", m.name, m.bytes, when)
	case slice.Engine == laps.Crossing && slice.Step < 0:
		m.name, m.tip = "the result", "The result crosses over: "+when
	case slice.Engine == laps.Crossing:
		m.name = names[slice.Step]
		m.tip = fmt.Sprintf("Activations cross over before %s, %v: %s", m.name, s.Manifest.Steps[slice.Step].Crossing, when)
	default:
		m.name = names[slice.Step]
		m.tip = fmt.Sprintf("Step %d of %d, %s: %s", slice.Step+1, len(s.Manifest.Steps), m.name, when)
	}
	return m
}

func (s Subject) pageName(copied int) string {
	return label.Page(s.Manifest, s.Plan.Pages[s.Plan.Copies[copied].Page], longest)
}

// look says what to look for.
func (t timeline) look() string {
	switch {
	case t.Stalls > 0:
		return "Look for the striped marks: there the card stands still and waits for a copy. The fewer and the narrower they are, " +
			"the closer the plan is to computing all the time."
	case t.Has("cpu"):
		return "Look at who computes when: the card is faster, but each change of sides takes its time too."
	}
	return "Look at the row of the card: it has no striped marks, so the card never stands still for a copy."
}

// Waits says how often the card waits.
func (t timeline) Waits() string { return times(t.Stalls) }

// words is the picture for whoever does not see it.
func (t timeline) words(l laps.Laps) string {
	text := fmt.Sprintf("Two forwards in %s.", Duration(l.Window))
	for _, lane := range t.Lanes {
		text += fmt.Sprintf(" %s: %s.", lane.Name, lane.Note)
	}
	return text + fmt.Sprintf(" The card waits %s for copies in the two forwards.", t.Waits())
}

func times(n int) string {
	switch n {
	case 0:
		return "never"
	case 1:
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// share is a part of the whole, in whole percent unless it is small.
func share(part float64) string {
	percent := 100 * part
	if percent > 0 && percent < 1 {
		return "under 1 %"
	}
	return fmt.Sprintf("%.0f %%", percent)
}

// timeTicks divide a window into round parts; every other tick is left out where there is little room.
func timeTicks(window planner.Nanoseconds) (out []tick) {
	step := round(float64(window) / 10)
	unit, size := timeUnit(window)
	for i := 0; float64(i)*step <= float64(window); i++ {
		at := float64(i) * step
		text := trimmed(at / size)
		if i == 0 {
			text += " " + unit
		}
		out = append(out, tick{Left: percent(at / float64(window)), Label: text, Minor: i%2 == 1 || at > 0.97*float64(window)})
	}
	return out
}

// timeUnit is the unit in which times up to most are told, and its length.
func timeUnit(most planner.Nanoseconds) (string, float64) {
	switch {
	case most < 1_000:
		return "ns", 1
	case most < 1_000_000:
		return "us", 1e3
	case most < 1_000_000_000:
		return "ms", 1e6
	}
	return "s", 1e9
}

// round is the next number of the form 1, 2 or 5 times a power of ten.
func round(size float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(max(size, 1e-9))))
	for _, factor := range []float64{1, 2, 5} {
		if factor*power >= size*(1-1e-9) {
			return factor * power
		}
	}
	return 10 * power
}

// Has tells whether anything of a class is drawn.
func (t timeline) Has(class string) bool {
	return t.any(func(b box) bool { return b.Class == class })
}

// Grouped tells whether anything is drawn together.
func (t timeline) Grouped() bool {
	return t.any(func(b box) bool { return b.Count > 1 })
}

func (t timeline) any(is func(box) bool) bool {
	return slices.ContainsFunc(t.Lanes, func(l lane) bool { return slices.ContainsFunc(l.Boxes, is) })
}
