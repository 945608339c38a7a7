package report

import (
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/optimem/optimem/planner"
)

// A curve is the picture of what other budgets would give.
type curve struct {
	chart
	Known bool
	Rows  []curveRow
	Note  string
}

// A curveRow is a point in words.
type curveRow struct{ Budget, Share, Period, Bound string }

func newCurve(s Subject) (curve, error) {
	var out curve
	works := s.works()
	if len(works) < 2 {
		return out, nil
	}
	out.Known = true
	for _, p := range s.Curve {
		out.Rows = append(out.Rows, newCurveRow(p, s.Manifest.Weights()))
		if p.Missing > 0 {
			out.Note = fmt.Sprintf("%v and less are too little for any plan.", p.Budget)
		}
	}
	last := works[len(works)-1]
	if s.beyond(last.Budget) {
		out.Note += fmt.Sprintf(" Your budget, %v, lies to the right of the picture.", s.Plan.Budget)
	}
	text := fmt.Sprintf("Predicted time per forward from %s at %v down to %s at %v.",
		Duration(works[0].Period), works[0].Budget, Duration(last.Period), last.Budget)
	var err error
	out.chart, err = both(text, func(shape shape) (*plot.Plot, error) { return s.drawCurve(works, shape), nil })
	return out, err
}

// works are the points with a plan, none so far out that it would press the curve together.
func (s Subject) works() (out []planner.Point) {
	for _, p := range s.Curve {
		if p.Period > 0 && float64(p.Budget) <= farOut*float64(s.Manifest.Weights()) {
			out = append(out, p)
		}
	}
	return out
}

// farOut is the share of the weights from which on budgets are too far out to be drawn.
const farOut = 1.15

func newCurveRow(p planner.Point, weights planner.Bytes) curveRow {
	row := curveRow{Budget: p.Budget.String(), Share: fmt.Sprintf("%.0f %%", 100*float64(p.Budget)/float64(max(1, weights)))}
	if p.Period == 0 {
		row.Period = fmt.Sprintf("no plan: %v too little", p.Missing)
		return row
	}
	row.Period, row.Bound = Duration(p.Period), Duration(p.Bound)
	return row
}

func (s Subject) drawCurve(works []planner.Point, shape shape) *plot.Plot {
	most, slowest := works[len(works)-1].Budget, s.Plan.Period
	for _, p := range works {
		slowest = max(slowest, p.Period, p.Bound)
	}
	if s.Run != nil {
		slowest = max(slowest, s.Run.Period)
	}
	unit, size := byteUnit(most)
	timeName, long := timeUnit(slowest)
	own := s.Plan.Budget
	if s.beyond(most) {
		own = most // where the line is as flat as further right
	}
	out := newPlot(axis(unit+" of budget", float64(max(most, own))*1.02, size, shape.ticks),
		axis(timeName+" per forward", 1.08*float64(slowest), long, 5), shape)
	var periods, bounds plotter.XYs
	for _, p := range works {
		periods = append(periods, plotter.XY{X: float64(p.Budget) / size, Y: float64(p.Period) / long})
		if p.Bound > 0 {
			bounds = append(bounds, plotter.XY{X: float64(p.Budget) / size, Y: float64(p.Bound) / long})
		}
	}
	at := float64(own) / size
	if own == s.Plan.Budget {
		out.Add(newLine(plotter.XYs{{X: at, Y: 0}, {X: at, Y: 1.08 * float64(slowest) / long}}, alarm, 1.5, 8, 4))
	}
	if len(bounds) > 0 {
		out.Add(newLine(bounds, good, 2, 4, 3))
	}
	out.Add(newLine(periods, resident, 2.5), dot(at, float64(s.Plan.Period)/long, draw.CircleGlyph{}, 4.5, resident))
	if s.Run != nil && s.Run.Period > 0 {
		out.Add(dot(at, float64(s.Run.Period)/long, ring{}, 8, ink))
	}
	return out
}

// beyond tells whether the budget lies too far out to be drawn.
func (s Subject) beyond(most planner.Bytes) bool {
	return s.Plan.Budget > most && float64(s.Plan.Budget) > farOut*float64(s.Manifest.Weights())
}

// dot is one point.
func dot(x, y float64, shape draw.GlyphDrawer, radius vg.Length, c color.Color) *plotter.Scatter {
	return &plotter.Scatter{XYs: plotter.XYs{{X: x, Y: y}}, GlyphStyle: draw.GlyphStyle{Color: c, Radius: radius, Shape: shape}}
}

// A ring is drawn around a point, for two points may lie on each other.
type ring struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (ring) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, at vg.Point) {
	c.SetLineStyle(draw.LineStyle{Color: style.Color, Width: 1.5})
	var p vg.Path
	p.Move(vg.Point{X: at.X + style.Radius, Y: at.Y})
	p.Arc(at, style.Radius, 0, 2*math.Pi)
	p.Close()
	c.Stroke(p)
}

// Budgets are those that a curve is drawn from: 10 to 110 % of the weights, and one's own where it lies among them.
func Budgets(weights, own planner.Bytes) (out []planner.Bytes) {
	for percent := planner.Bytes(10); percent <= 110; percent += 5 {
		out = append(out, max(1, weights*percent/100))
	}
	if own <= weights*110/100 {
		out = append(out, max(1, own))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
