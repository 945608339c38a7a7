package search

import (
	"errors"

	"github.com/optimem/optimem/planner"
)

// Curve plans for each of the budgets, in device bytes for weights alone. A point says how many bytes its budget is short
// where it is too small. Other errors are those of Build.
func Curve(m planner.Manifest, machine planner.Machine, o planner.Options, budgets []planner.Bytes) ([]planner.Point, error) {
	points := make([]planner.Point, len(budgets))
	for i, budget := range budgets {
		o.Budget = budget
		p, err := Build(m, machine, o)
		var small *TooSmallError
		switch {
		case errors.As(err, &small):
			points[i] = planner.Point{Budget: budget, Missing: small.Missing()}
		case err != nil:
			return nil, err
		default:
			points[i] = planner.Point{Budget: budget, Period: p.Period, Bound: p.Bound}
		}
	}
	return points, nil
}
