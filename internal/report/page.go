package report

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the page, its style and its script
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"

	"github.com/optimem/optimem/internal/label"
	"github.com/optimem/optimem/internal/laps"
	"github.com/optimem/optimem/planner"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string

	pageTemplate = template.Must(template.New("page").Parse(pageHTML))
)

// A page is what the template draws.
type page struct {
	Policy      string // what the browser may load: nothing
	Style       template.CSS
	Script      template.JS
	Title       string
	Certificate string
	Lead        []string
	Facts       []fact
	Timeline    timeline
	Memory      chart
	Closer      chart // of the arena alone, where the residents leave little of the memory's picture to it
	Legend      memoryLegend
	Strip       strip
	Curve       curve
	Budget      string
	Simulated   bool
	Measured    bool
}

// A memoryLegend says what the picture of memory shows; "" is not in it.
type memoryLegend struct{ Look, Resident, Arena, Budget, Reserve, Peak string }

func newMemoryLegend(p planner.Plan, l laps.Laps) memoryLegend {
	out := memoryLegend{
		Look:   "Look at the filled shape and the dashed line: the weights on the card never take more than the budget.",
		Budget: p.Budget.String(), Peak: l.Peak().String(),
	}
	if p.Resident > 0 {
		out.Resident = p.Resident.String()
	}
	if p.Reserve > 0 {
		out.Reserve = p.Reserve.String()
	}
	if slack(p) {
		out.Arena = p.Arena.String()
	}
	if far(p, l) {
		out.Look = "Look at the filled shape: it stays far below the budget, which lies above the picture."
		out.Budget += ", above the picture"
	}
	return out
}

// Write writes the page.
func Write(w io.Writer, s Subject) error {
	l, err := laps.Of(s.Manifest, s.Plan, s.Machine)
	if err != nil {
		return fmt.Errorf("draw the plan of %s: %w", label.Short(s.Model, longest), err)
	}
	p, err := newPage(s, l)
	if err != nil {
		return err
	}
	var text bytes.Buffer // nothing half written leaves here
	if err := pageTemplate.Execute(&text, p); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	_, err = w.Write(text.Bytes())
	return err
}

func newPage(s Subject, l laps.Laps) (page, error) {
	p := page{
		Budget: s.Plan.Budget.String(),
		Policy: policy(), Style: template.CSS(pageCSS), Script: template.JS(pageJS),
		Title: s.title(), Certificate: s.Certificate().String(), Lead: s.lead(l), Facts: s.numbers(),
		Timeline: newTimeline(s, l), Strip: newStrip(s), Simulated: s.Simulated, Measured: s.Certificate().Measured,
		Legend: newMemoryLegend(s.Plan, l),
	}
	var err error
	if l.Known() {
		if p.Memory, p.Closer, err = newMemory(s, l); err != nil {
			return p, err
		}
	}
	p.Curve, err = newCurve(s)
	return p, err
}

// policy lets the browser load nothing, and run the one script that is in the page.
func policy() string {
	sum := sha256.Sum256([]byte(pageJS))
	return "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; script-src 'sha256-" +
		base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (s Subject) title() string {
	title := cmp.Or(label.Short(s.Model, 100), "A model")
	if s.Device != "" {
		title += " on " + label.Short(s.Device, 100)
	}
	return title
}

// lead is what to know before the pictures.
func (s Subject) lead(l laps.Laps) (lead []string) {
	lead = append(lead, fmt.Sprintf("The model has %v of weights, %s (mode %s).", s.Manifest.Weights(), s.held(), s.Plan.Mode))
	if s.Estimated {
		lead = append(lead, "All times on this page are estimates.")
	}
	if s.Simulated {
		lead = append(lead, "All times on this page are those of a simulated card, not of a GPU.")
	}
	switch {
	case !s.Manifest.Recorded:
		lead = append(lead, "The plan was made before the model was recorded, so that there are no times to draw yet.")
	case s.Run == nil:
		lead = append(lead, "Nothing was run: all times are predicted.")
	default:
		lead = append(lead, "The pictures show the plan as it is predicted; what was measured is in the numbers.")
	}
	if l.Known() && !s.knowsCard() {
		lead = append(lead, "How long the card computes is not known under this plan, and counts as no time.")
	}
	if l.Known() && !l.Repeats {
		lead = append(lead, "The forwards of this plan do not repeat exactly: what is drawn takes a little longer than they do on average.")
	}
	for _, remark := range s.Remarks[:min(mostRemarks, len(s.Remarks))] {
		lead = append(lead, "Note: "+label.Short(remark, 300))
	}
	return lead
}

// knowsCard tells whether there are times of the card.
func (s Subject) knowsCard() bool {
	return slices.ContainsFunc(s.Manifest.Steps, func(step planner.Step) bool { return step.Compute > 0 })
}

// held is how much of the weights the card holds.
func (s Subject) held() string {
	switch {
	case !s.Plan.Mode.Streams():
		return fmt.Sprintf("%v of them live on the card", s.Plan.Resident)
	case s.Plan.Budget >= s.Manifest.Weights():
		return "the card may hold all of them"
	}
	return fmt.Sprintf("the card may hold %v of them at a time", s.Plan.Budget)
}

// mostRemarks is how many remarks a page has room for.
const mostRemarks = 8
