package report

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/optimem/optimem/internal/laps"
	"github.com/optimem/optimem/planner"
)

// closeUp is the share of the budget above the residents below which a second picture shows that part alone.
const closeUp = 0.3

// newMemory draws how much of the card the weights take, over time, and where that is hard to see what comes and goes alone.
func newMemory(s Subject, l laps.Laps) (all, closer chart, err error) {
	p := s.Plan
	text := fmt.Sprintf("Weights on the card over two forwards: %v always, %v at most; the budget is %v.", l.Resident, l.Peak(), p.Budget)
	if all, err = both(text, func(shape shape) (*plot.Plot, error) { return drawMemory(l, 0, p, shape), nil }); err != nil {
		return all, closer, err
	}
	if p.Arena == 0 || float64(p.Budget-p.Resident) > closeUp*float64(p.Budget) {
		return all, closer, nil
	}
	text = fmt.Sprintf("Weights brought in and not yet released over two forwards: %v at most, of %v that the budget leaves to them.",
		l.Peak()-l.Resident, p.Budget-p.Resident)
	closer, err = both(text, func(shape shape) (*plot.Plot, error) { return drawMemory(l, p.Resident, p, shape), nil })
	return all, closer, err
}

// drawMemory draws what lies above a level.
func drawMemory(l laps.Laps, above planner.Bytes, p planner.Plan, shape shape) *plot.Plot {
	most := 1.04 * float64(max(p.Budget, l.Peak())-above)
	if above == 0 && far(p, l) {
		most = 1.3 * float64(max(1, l.Peak()))
	}
	unit, size := byteUnit(planner.Bytes(most))
	timeName, long := timeUnit(l.Window)
	end := float64(l.Window) / long
	out := newPlot(axis("time, "+timeName, float64(l.Window), long, shape.ticks), axis(unit+" of weights", most, size, 5), shape)
	line := func(at planner.Bytes) plotter.XYs {
		return plotter.XYs{{X: 0, Y: float64(at-above) / size}, {X: end, Y: float64(at-above) / size}}
	}
	held := newLine(levels(l, above, columns(shape), long, size), copied, 1)
	held.FillColor = copied
	out.Add(held)
	if above < l.Resident {
		always := newLine(line(l.Resident), resident, 1)
		always.FillColor = resident
		out.Add(always)
	}
	if slack(p) {
		out.Add(newLine(line(p.Resident+p.Arena), ink, 1, 2, 3))
	}
	if above > 0 || !far(p, l) {
		out.Add(newLine(line(p.Budget), alarm, 2, 8, 4))
	}
	return out
}

// slack tells whether the arena ends so far below the budget that the two can be told apart.
func slack(p planner.Plan) bool {
	return p.Arena > 0 && 25*(p.Budget-p.Resident-p.Arena) > p.Budget-p.Resident
}

// far tells whether the budget is so large that the weights would be a line at the foot of the picture.
func far(p planner.Plan, l laps.Laps) bool { return p.Budget > 4*l.Peak() }

// columns is how many points of time a chart can tell apart.
func columns(s shape) int { return int(s.width.Points()) }

// levels is the memory above a level as a line of steps. Where there are more changes than a chart can show, each column
// keeps its lowest and its highest, so that no peak is lost.
func levels(l laps.Laps, above planner.Bytes, columns int, long, size float64) (out plotter.XYs) {
	add := func(at planner.Nanoseconds, level planner.Bytes) {
		if n := len(out); n > 0 {
			out = append(out, plotter.XY{X: float64(at) / long, Y: out[n-1].Y})
		}
		out = append(out, plotter.XY{X: float64(at) / long, Y: float64(level-above) / size})
	}
	for _, level := range thinned(l.Memory, l.Window, columns) {
		add(level.At, level.Bytes)
	}
	add(l.Window, l.Memory[len(l.Memory)-1].Bytes)
	return out
}

// thinned keeps of every column's levels the lowest and the highest, in their order, and the last.
func thinned(all []laps.Level, window planner.Nanoseconds, columns int) (out []laps.Level) {
	if len(all) <= 3*columns {
		return all
	}
	width := window/planner.Nanoseconds(columns) + 1
	for first := 0; first < len(all); {
		last, low, high := first, first, first
		for ; last < len(all) && all[last].At/width == all[first].At/width; last++ {
			if all[last].Bytes < all[low].Bytes {
				low = last
			}
			if all[last].Bytes > all[high].Bytes {
				high = last
			}
		}
		for i := first; i < last; i++ {
			if i == low || i == high || i == last-1 {
				out = append(out, all[i])
			}
		}
		first = last
	}
	return out
}
