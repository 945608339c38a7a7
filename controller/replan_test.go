package controller

import (
	"testing"

	"github.com/optimem/optimem/planner"
)

func TestReplan(t *testing.T) {
	const stays = -1 // the finding changes nothing, and is not looked for
	type pair struct {
		at    standing
		found finding
	}
	tests := map[string]struct {
		pair
		want standing
	}{
		"the first times of a recording lead to a plan on its prediction": {pair{fresh, foundTimes}, predicted},
		"a budget that changes before there is a plan leaves nothing":     {pair{fresh, foundChange}, fresh},
		"without a plan no prediction is off":                             {pair{fresh, foundMistaken}, stays},
		"without a plan nothing is tried out":                             {pair{fresh, foundTried}, stays},
		"without a plan nothing is slower":                                {pair{fresh, foundSlower}, stays},
		"without a plan no CPU is slower":                                 {pair{fresh, foundCPUSlower}, stays},

		"a prediction that is off leads to a plan on a newer prediction": {pair{predicted, foundMistaken}, predicted},
		"a plan that has run for seven forwards is compared":             {pair{predicted, foundTried}, compared},
		"a changed budget makes a predicted plan a thing of the past":    {pair{predicted, foundChange}, fresh},
		"there are no first times under a predicted plan":                {pair{predicted, foundTimes}, stays},
		"a plan on trial is not found slower":                            {pair{predicted, foundSlower}, stays},
		"a plan on trial keeps the CPU":                                  {pair{predicted, foundCPUSlower}, stays},

		"a compared plan whose prediction is off gives way to a newer prediction": {pair{compared, foundMistaken}, predicted},
		"a compared plan that is slower than the fastest gives way to it":         {pair{compared, foundSlower}, settled},
		"a compared plan in which the CPU is slower gives way to one without it":  {pair{compared, foundCPUSlower}, withoutCPU},
		"a changed budget makes a comparison a thing of the past":                 {pair{compared, foundChange}, fresh},
		"there are no first times under a compared plan":                          {pair{compared, foundTimes}, stays},
		"a plan is compared once":                                                 {pair{compared, foundTried}, stays},

		"a settled plan has its trial too":                           {pair{settled, foundTried}, proven},
		"a changed budget makes a settled plan a thing of the past":  {pair{settled, foundChange}, fresh},
		"there are no first times under a settled plan":              {pair{settled, foundTimes}, stays},
		"predictions count for nothing against the fastest plan":     {pair{settled, foundMistaken}, stays},
		"the fastest plan is not found slower":                       {pair{settled, foundSlower}, stays},
		"the fastest plan keeps the CPU until its trial is over":     {pair{settled, foundCPUSlower}, stays},
		"the fastest plan gives way where its CPU turns out slower":  {pair{proven, foundCPUSlower}, withoutCPU},
		"a changed budget makes a proven plan a thing of the past":   {pair{proven, foundChange}, fresh},
		"there are no first times under a proven plan":               {pair{proven, foundTimes}, stays},
		"predictions count for nothing against a proven plan":        {pair{proven, foundMistaken}, stays},
		"a proven plan is tried out once":                            {pair{proven, foundTried}, stays},
		"a proven plan is not found slower: it is the fastest":       {pair{proven, foundSlower}, stays},
		"a prediction without the CPU that is off leads to another":  {pair{withoutCPU, foundMistaken}, withoutCPU},
		"a plan without the CPU is compared after its trial":         {pair{withoutCPU, foundTried}, compared},
		"a changed budget lets the CPU be tried again":               {pair{withoutCPU, foundChange}, fresh},
		"there are no first times under a plan without the CPU":      {pair{withoutCPU, foundTimes}, stays},
		"a plan without the CPU is not found slower while on trial":  {pair{withoutCPU, foundSlower}, stays},
		"where the CPU takes no part it is not slower than anything": {pair{withoutCPU, foundCPUSlower}, stays},
	}
	seen := map[pair]string{}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if twin, ok := seen[test.pair]; ok {
				t.Errorf("it is the pair of %q", twin)
			}
			seen[test.pair] = name
			r := replan{standing: test.at}
			got, ok := test.at.after(test.found)
			r.found(test.found)
			want := test.want
			if want == stays {
				want = test.at
			}
			if ok != (test.want != stays) || ok != (&replan{standing: test.at}).heeds(test.found) || r.standing != want {
				t.Errorf("%v by %v: %v %v, and then %v", test.at, test.found, got, ok, r.standing)
			}
		})
	}
	for at := range standing(len(standingNames)) {
		for found := range finding(len(findingNames)) {
			if _, ok := seen[pair{at, found}]; !ok {
				t.Errorf("nothing says what %q means where a plan stands %q", found, at)
			}
		}
	}
}

func TestAChangedBudgetLeavesNothingOfWhatWasSeen(t *testing.T) {
	r := replan{compared, seen{period: 7}, true}
	r.found(foundChange)
	if r.fastest.period != 0 || r.aloneTried || r.standing != fresh {
		t.Errorf("%+v", r)
	}
}

func TestWhatNoLongerFitsIsForgottenAndThePlanInForceStays(t *testing.T) {
	r := replan{compared, seen{period: 7}, true}
	r.forget()
	if r.fastest.period != 0 || r.aloneTried || r.standing != compared {
		t.Errorf("%+v", r)
	}
}

func TestStandingsAndFindingsHaveNames(t *testing.T) {
	names := map[string]bool{standing(99).String(): true, finding(99).String(): true, standing(-1).String(): true, finding(-1).String(): true}
	for at := range standing(len(standingNames)) {
		names[at.String()] = true
	}
	for found := range finding(len(findingNames)) {
		names[found.String()] = true
	}
	if want := 4 + len(standingNames) + len(findingNames); len(names) != want {
		t.Errorf("%d names, want %d: %v", len(names), want, names)
	}
	if len(turns) != len(standingNames) {
		t.Errorf("the table has %d standings, %d have names", len(turns), len(standingNames))
	}
}

func TestAPredictionIsOffByMoreThanATenthOfWhatWasSeen(t *testing.T) {
	for predicted, want := range map[planner.Nanoseconds]bool{89: true, 90: false, 100: false, 110: false, 111: true} {
		if got := off(predicted, 100); got != want {
			t.Errorf("%d predicted, 100 seen: %v", predicted, got)
		}
	}
}

func TestTheFasterOfTwoPlans(t *testing.T) {
	none, fast, slow := seen{}, seen{period: 100}, seen{period: 200}
	for name, test := range map[string]struct{ got, want seen }{
		"the first one seen":       {none.or(slow), slow},
		"none is no faster":        {slow.or(none), slow},
		"a faster one":             {slow.or(fast), fast},
		"a slower one":             {fast.or(slow), fast},
		"of two alike the earlier": {fast.or(seen{draft{planner.Plan{Version: 1}, Basis{}}, 100}), fast},
	} {
		t.Run(name, func(t *testing.T) {
			if test.got.period != test.want.period || test.got.Version != test.want.Version {
				t.Errorf("got %d of plan %d", test.got.period, test.got.Version)
			}
		})
	}
	for period, want := range map[uint64]bool{102: false, 103: true} {
		if fast.beats(period) != want || none.beats(period) {
			t.Errorf("100 beats %d: %v", period, !want)
		}
	}
}
