package planner

import (
	"slices"
	"testing"
)

func TestTimesThatAreKnownOnOneSideAreEstimatedOnTheOther(t *testing.T) {
	for name, test := range map[string]struct{ given, want []Step }{
		"nothing is known":     {[]Step{{}, {}}, []Step{{}, {}}},
		"one side":             {[]Step{{CPU: 5}, {CPU: 9}}, []Step{{CPU: 5}, {CPU: 9}}},
		"never both":           {[]Step{{CPU: 5}, {Compute: 9}}, []Step{{CPU: 5}, {Compute: 9}}},
		"all is known":         {[]Step{{Compute: 1, CPU: 5}}, []Step{{Compute: 1, CPU: 5}}},
		"the ratio of the sum": {[]Step{{Compute: 10, CPU: 10}, {Compute: 20, CPU: 80}, {CPU: 300}, {Compute: 50}, {}}, []Step{{Compute: 10, CPU: 10}, {Compute: 20, CPU: 80}, {Compute: 100, CPU: 300}, {Compute: 50, CPU: 150}, {}}},
		"nothing else changes": {[]Step{{Compute: 1, CPU: 2}, {CPU: 4, Activations: 7, Crossing: 9}}, []Step{{Compute: 1, CPU: 2}, {Compute: 2, CPU: 4, Activations: 7, Crossing: 9}}},
	} {
		given := Manifest{Steps: slices.Clone(test.given)}
		if got := given.WithEstimates().Steps; !slices.Equal(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
		if !slices.Equal(given.Steps, test.given) {
			t.Errorf("%s: the manifest itself has changed", name)
		}
	}
}
