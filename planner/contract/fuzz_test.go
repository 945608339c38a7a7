package contract

import (
	"errors"
	"testing"

	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

// FuzzRespond wants no request to break anything: it is answered, refused by a field, or told what its budget is short of.
func FuzzRespond(f *testing.F) {
	f.Add([]byte(`{"manifest": {"units": [{"bytes": 4096, "compute_ns": 9}, {"bytes": 512, "cpu_ns": 3}]}, "options": {"vram": "90%", "mode": "auto"}}`))
	f.Add([]byte(`{"manifest": {"steps": [{}, {"compute_ns": 4}], "units": [{"id": "a", "bytes": 9, "uses": [[0, 0], [1, 1]]}, {"bytes": 3, "uses": [[0, 1]]}]},
		"machine": {"budget_bytes": 12, "link": {"bytes_per_second": 1}}, "options": {"pages_as_given": true, "curve": ["5%", 9]}}`))
	f.Add([]byte(`{"manifest": {"units": [{"bytes": 1125899906842624}]}, "machine": {"free_bytes": 1125899906842624}, "options": {"mode": "chunk"}}`))
	for _, all := range lies {
		for _, lie := range all {
			f.Add([]byte(lie.text))
		}
	}
	schema := schemas(f)["answer"]
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ReadRequest(text)
		if err != nil || len(r.Manifest.Units) > 64 || len(r.Options.Curve) > 8 {
			return // planning for many is another test's
		}
		answer, err := r.Answer()
		var small *search.TooSmallError
		var ours *Error
		switch {
		case errors.As(err, &small), errors.As(err, &ours), errors.Is(err, planner.ErrInvalid):
			return
		case err != nil:
			t.Fatalf("%v of %s", err, text)
		}
		if err := roundTrip(answer, schema.Validate, func(b []byte) any { return parsed(t, b) }); err != nil {
			t.Errorf("%v of %s", err, text)
		}
	})
}
