package planner

import "errors"

// A Point is what a budget gives.
type Point struct {
	Budget  Bytes
	Period  Nanoseconds // 0 where the budget is too small
	Bound   Nanoseconds
	Missing Bytes // how many bytes the budget is short of the least that works; 0 where it works
}

// Curve plans for each of the budgets, device bytes for weights alone.
func Curve(m Manifest, machine Machine, o Options, budgets []Bytes) ([]Point, error) {
	points := make([]Point, len(budgets))
	for i, budget := range budgets {
		o.Budget = budget
		p, err := Build(m, machine, o)
		var small *TooSmallError
		switch {
		case errors.As(err, &small):
			points[i] = Point{Budget: budget, Missing: small.Missing()}
		case err != nil:
			return nil, err
		default:
			points[i] = Point{Budget: budget, Period: p.Period, Bound: p.Bound}
		}
	}
	return points, nil
}
