package report

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A chart is a picture with axes, drawn once for a wide page and once for a narrow one.
type chart struct {
	Wide, Narrow template.HTML
	Text         string // the picture in words
}

// A shape is the size that a chart is drawn for, and how many ticks fit on its axes.
type shape struct {
	class         string
	width, height vg.Length
	ticks         float64
}

var (
	wide   = shape{"wide", 960, 300, 10}
	narrow = shape{"narrow", 350, 260, 5}
)

// The colours of a chart are names of the page's variables: a chart is drawn in these stand-ins, and each is then replaced
// by its variable, so that one drawing serves for light, dark and paper.
var (
	ink      = color.RGBA{1, 1, 1, 255}
	faint    = color.RGBA{1, 1, 2, 255}
	resident = color.RGBA{1, 1, 3, 255}
	copied   = color.RGBA{1, 1, 4, 255}
	alarm    = color.RGBA{1, 1, 5, 255}
	good     = color.RGBA{1, 1, 6, 255}

	variables = strings.NewReplacer(
		"#010101", "var(--ink)", "#010102", "var(--faint)", "#010103", "var(--resident)",
		"#010104", "var(--copy)", "#010105", "var(--stall)", "#010106", "var(--compute)",
	)
)

// newPlot is an empty chart in the page's colours.
func newPlot(x, y plot.Axis, s shape) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, axis := range []struct{ to, from *plot.Axis }{{&p.X, &x}, {&p.Y, &y}} {
		a := axis.to
		a.Min, a.Max, a.Label.Text, a.Tick.Marker = axis.from.Min, axis.from.Max, axis.from.Label.Text, axis.from.Tick.Marker
		a.Color, a.Tick.Color, a.Label.TextStyle.Color, a.Tick.Label.Color = faint, faint, ink, ink
		a.Tick.Length, a.Padding = 4, 0
		for _, style := range []*draw.TextStyle{&a.Label.TextStyle, &a.Tick.Label} {
			style.Font = font.From(plot.DefaultFont, 12)
		}
	}
	p.X.Label.Padding, p.Y.Label.Padding = 4, 4
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = nil, faint
	grid.Horizontal.Width, grid.Horizontal.Dashes = 0.5, []vg.Length{1, 3}
	p.Add(grid)
	return p
}

// axis goes from 0 to a round number above most, in a unit.
func axis(label string, most, size float64, ticks float64) plot.Axis {
	a := plot.Axis{Min: 0, Max: most / size}
	a.Label.Text = label
	a.Tick.Marker = plot.TickerFunc(func(_, top float64) (out []plot.Tick) {
		step := round(top / ticks) // top is above most where a line goes beyond it
		for i := 0; float64(i)*step <= top*(1+1e-9); i++ {
			out = append(out, plot.Tick{Value: float64(i) * step, Label: trimmed(float64(i) * step)})
		}
		return out
	})
	return a
}

// trimmed prints a number of few digits as short as it can be.
func trimmed(value float64) string {
	return strconv.FormatFloat(math.Round(value*1e6)/1e6, 'f', -1, 64)
}

// newLine is a line of a colour.
func newLine(points plotter.XYs, c color.Color, width vg.Length, dashes ...vg.Length) *plotter.Line {
	return &plotter.Line{XYs: points, LineStyle: draw.LineStyle{Color: c, Width: width, Dashes: dashes}}
}

// svg draws a plot so that it can stand in a page.
func svg(p *plot.Plot, s shape) (template.HTML, error) {
	canvas := vgsvg.New(s.width, s.height)
	p.Draw(draw.Crop(draw.New(canvas), 2, -14, 4, -8))
	var text bytes.Buffer
	if _, err := canvas.WriteTo(&text); err != nil {
		return "", fmt.Errorf("draw a chart: %w", err)
	}
	_, body, found := strings.Cut(text.String(), "xmlns:xlink=\"http://www.w3.org/1999/xlink\">")
	if !found {
		return "", fmt.Errorf("draw a chart: the drawing has no head that is known, it begins with %.80q", text.String())
	}
	head := fmt.Sprintf(`<svg class="%s" viewBox="0 0 %v %v" aria-hidden="true">`, s.class, s.width.Points(), s.height.Points())
	return template.HTML(head + variables.Replace(withoutFonts(body))), nil
}

// withoutFonts leaves the choice of the font to the page.
func withoutFonts(body string) string {
	return strings.ReplaceAll(body, "font-family:Liberation Serif;font-variant:normal;font-weight:normal;font-style:normal;", "")
}

// both draws a chart in both shapes.
func both(text string, draw func(shape) (*plot.Plot, error)) (chart, error) {
	c := chart{Text: text}
	for _, one := range []struct {
		to *template.HTML
		s  shape
	}{{&c.Wide, wide}, {&c.Narrow, narrow}} {
		p, err := draw(one.s)
		if err != nil {
			return chart{}, err
		}
		if *one.to, err = svg(p, one.s); err != nil {
			return chart{}, err
		}
	}
	return c, nil
}
