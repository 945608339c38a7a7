package search

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/optimem/optimem/planner"
)

// A TooSmallError says that a budget cannot hold the weights that must be on the device at once.
type TooSmallError struct {
	Budget  planner.Bytes
	Need    planner.Bytes
	Reserve planner.Bytes // kept for activations and others, beside the budget
	Kept    planner.Bytes // of weights that are not paged; the budget is what is left beside them
	What    string        // the page, or the units that must be resident
}

// Missing is how many bytes the budget lacks.
func (e *TooSmallError) Missing() planner.Bytes { return e.Need - e.Budget }

// Error names the budget, the weights that do not fit, their bytes, the missing bytes, and what to do.
func (e *TooSmallError) Error() string {
	what := e.What + " takes"
	if e.Kept > 0 {
		what = fmt.Sprintf("%s, with the %v of weights that cannot be paged and stay on the device, takes", e.What, e.Kept)
	}
	text := fmt.Sprintf("a budget of %v for weights is too small: %s %v, so %v (%d bytes) are missing",
		e.Budget+e.Kept, what, e.Need+e.Kept, e.Missing(), int64(e.Missing()))
	if e.Reserve > e.Kept {
		text += fmt.Sprintf(", beside the %v kept for activations", e.Reserve)
	}
	return text + "; give more device memory or page smaller modules"
}

// tooSmall is the error for weights that need more than the budget.
func (b builder) tooSmall(need planner.Bytes, what string) error {
	return &TooSmallError{Budget: b.budget, Need: need, Reserve: b.reserve, Kept: b.m.Kept, What: what}
}

// largest is the unit with the most bytes.
func (b builder) largest() planner.Unit {
	return slices.MaxFunc(b.m.Units, func(x, y planner.Unit) int { return cmp.Compare(x.Bytes, y.Bytes) })
}

// least is the error for a search without a result. It tells the bytes that the leanest placements need.
func (b builder) least(s *finder) error {
	places := s.leanest()
	together, page := s.lap.mostAtOnce(places)
	var names []string
	for i, p := range places {
		if p == planner.Resident {
			names = append(names, b.m.Units[s.lap.pages[i].units[0]].Path)
		}
	}
	what := "the set of units that must be resident because they are read over many steps, " + few(names)
	if together > 0 {
		what = "the largest page, " + b.m.Units[s.lap.pages[page].units[0]].Path
		if together > s.lap.pages[page].bytes {
			what = "the set of pages in use together with " + b.m.Units[s.lap.pages[page].units[0]].Path
		}
		if len(names) > 0 {
			what += ", with the units that must be resident because they are read over many steps, " + few(names) + ","
		}
	}
	return b.tooSmall(max(s.need(places), b.budget+1), what)
}

// few names the first paths of a list, and counts the others.
func few(paths []string) string {
	if len(paths) > 3 {
		return fmt.Sprintf("%s, %s, %s and %d more", paths[0], paths[1], paths[2], len(paths)-3)
	}
	return fmt.Sprint(paths)
}
