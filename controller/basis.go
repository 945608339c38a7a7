package controller

import (
	"errors"

	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

// A Basis is the planner's input: the same basis gives the same plan, but for the version.
type Basis struct {
	Manifest planner.Manifest // with the times that were measured
	Machine  planner.Machine
	Options  planner.Options
}

// build makes a plan. No other function of the controller asks for one.
func (b Basis) build() (planner.Plan, error) { return search.Build(b.Manifest, b.Machine, b.Options) }

// evaluate is the period of a plan by the times of this basis.
func (b Basis) evaluate(p planner.Plan) (planner.Nanoseconds, error) {
	timeline, err := planner.Evaluate(b.Manifest, p, b.Machine)
	return timeline.Period, err
}

// curve implements Curve.
func (b Basis) curve(sizes ...planner.Bytes) ([]planner.Point, error) {
	points := make([]planner.Point, len(sizes))
	for i, size := range sizes {
		b.Machine.Free = size
		point, err := b.point()
		if err != nil {
			return nil, err
		}
		points[i] = point
	}
	return points, nil
}

// point tells what the plan of the basis gives.
func (b Basis) point() (planner.Point, error) {
	plan, err := b.build()
	var small *search.TooSmallError
	if errors.As(err, &small) {
		return planner.Point{Budget: b.Machine.Free, Missing: small.Missing()}, nil
	}
	return planner.Point{Budget: b.Machine.Free, Period: plan.Period, Bound: plan.Bound}, err
}
