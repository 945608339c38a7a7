package search

import (
	"testing"

	"github.com/optimem/optimem/planner"
)

func TestARememberedPeriodCountsAsEffortAgain(t *testing.T) {
	m := uniform(9, 1<<20, 50_000)
	f := newFinder(newLap(m, pcie, newGrouping(m, percent(50)).drafts()), m.Weights()/2)
	places := f.lap.residentInOrder([]int{1, 4, 7}, f.budget)
	period := f.evaluate(places, f.lap.bytesAt(places, planner.Resident))
	once := f.effort
	if again := f.evaluate(places, f.lap.bytesAt(places, planner.Resident)); again != period || once == 0 || f.effort != 2*once {
		t.Errorf("%v with an effort of %d, then %v with one of %d in all", period, once, again, f.effort)
	}
	if len(f.known) != 1 {
		t.Errorf("%d periods are remembered, not 1", len(f.known))
	}
	other := f.lap.residentInOrder([]int{1, 4}, f.budget)
	if period := f.evaluate(other, f.lap.bytesAt(other, planner.Resident)); period != f.period(other, f.budget-f.lap.bytesAt(other, planner.Resident)) {
		t.Errorf("other placements take %v", period)
	}
}
