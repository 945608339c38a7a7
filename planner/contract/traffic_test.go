package contract

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

// Figures that are in range, of which none of the sums would be.
func TestFiguresThatNoReaderWouldTakeAreRefused(t *testing.T) {
	const (
		two  = `"manifest": {"units": [{"bytes": 1000}, {"bytes": 1000}]}`
		most = `"manifest": {"units": [{"bytes": 1125899906842624}]}`
		slow = `"manifest": {"units": [{"bytes": 400000, "compute_ns": 6e14}, {"bytes": 400000, "compute_ns": 3e14}]}`
	)
	for request, want := range map[string]string{
		`{` + most + `, "options": {"vram": "1000%"}}`:                                                                                          "options.vram: 1000% of the weights is more",
		`{` + most + `, "machine": {"budget_bytes": 5}, "options": {"curve": [5, "101%"]}}`:                                                     "options.curve[1]: 101% of the weights is more",
		`{` + two + `, "machine": {"budget_bytes": 1500, "link": {"latency_ns": 6e14, "bytes_per_second": 1e9}}}`:                               "machine.link.latency_ns: ",
		`{` + two + `, "machine": {"budget_bytes": 1500, "link": {"latency_ns": 5e14, "bytes_per_second": 1000000}}, "options": {"link": 1e9}}`: "",
		`{` + strings.ReplaceAll(two, "1000", "1000000") + `, "machine": {"budget_bytes": 1500000, "link": {"bytes_per_second": 1}}}`:           "machine.link.bytes_per_second: ",
		`{` + strings.ReplaceAll(two, "1000", "1000000") + `, "machine": {"budget_bytes": 1500000}, "options": {"link": 1}}`:                    "options.link: ",
		`{` + slow + `, "machine": {"budget_bytes": 500000, "link": {"bytes_per_second": 1}}}`:                                                  "compute_ns: ",
		`{` + strings.ReplaceAll(two, "1000", "1000000") + `, "machine": {"budget_bytes": 1500000, "host": {"bytes_per_second": 1}}}`:           "machine.host.bytes_per_second: ",
		`{"manifest": {"units": [{"bytes": 1000, "crossing_bytes": 1000000}, {"bytes": 1000, "crossing_bytes": 1000000}]},
			"machine": {"budget_bytes": 1500, "host": {"cross_bytes_per_second": 1}}}`: "machine.host.cross_bytes_per_second: ",
	} {
		_, err := Respond([]byte(request))
		var ours *Error
		if want == "" && err != nil || want != "" && (!errors.As(err, &ours) || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: %v, want %s", request, err, want)
		}
	}
}

func TestAnIDThatIsMadeFitsToo(t *testing.T) {
	path := strings.Repeat("é", 2048)
	r, err := ReadRequest([]byte(`{"manifest": {"units": [{"bytes": 1, "path": "` + path + `"}, {"bytes": 1, "path": "` + path + `"}]}, "options": {"vram": "100%"}}`))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := r.Answer()
	if err != nil {
		t.Fatal(err)
	}
	if err := roundTrip(answer, schemas(t)["answer"].Validate, func(b []byte) any { return parsed(t, b) }); err != nil {
		t.Error(err)
	}
}

func TestAnAbsurdMachineInAnAnswerIsRefused(t *testing.T) {
	text, err := Respond([]byte(`{"manifest": {"units": [{"bytes": 4000000}, {"bytes": 8000000}]}, "options": {"vram": "80%", "curve": []}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{`"latency_ns": 10000, "bytes_per_second": 1`, `"latency_ns": 1125899906842624, "bytes_per_second": 25000000000`} {
		lie := strings.Replace(string(text), `"latency_ns": 10000, "bytes_per_second": 25000000000`, link, 1)
		answer, err := ReadAnswer([]byte(lie))
		if err != nil || lie == string(text) {
			t.Fatalf("%v in %s", err, lie)
		}
		if _, err := answer.Plan(); !errors.Is(err, planner.ErrInvalid) {
			t.Errorf("%s: %v", link, err)
		}
	}
}

func TestAnAnswerRepeatsWhatShapesPages(t *testing.T) {
	known := schemas(t)
	for options, want := range map[string]string{
		`"pages_as_given": true`:                          `"options": {"pages_as_given": true}`,
		`"mode": "chunk", "max_capacity": "3KiB"`:         `"options": {"max_capacity": "3072B"}`,
		`"max_layer_size": 4000, "max_capacity": 5000000`: `"options": {"max_layer_size": 4000, "max_capacity": "5000000"}`,
		`"curve": []`: "",
	} {
		r, err := ReadRequest([]byte(`{"manifest": {"units": [{"bytes": 4096}, {"bytes": 8192}]}, "options": {"vram": "80%", ` + options + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := r.Answer()
		if err != nil {
			t.Fatal(err)
		}
		text, _ := answer.Encode()
		if !strings.Contains(string(text), want) || want == "" && strings.Contains(string(text), `"options"`) {
			t.Errorf("%s: want %s in %s", options, want, text)
		}
		if err := roundTrip(answer, known["answer"].Validate, func(b []byte) any { return parsed(t, b) }); err != nil {
			t.Error(err)
		}
	}
}

func TestABudgetAboveWhatIsFreeIsSaid(t *testing.T) {
	const request = `{"manifest": {"units": [{"bytes": 10}, {"bytes": 10}]}, "machine": {"budget_bytes": 20, "free_bytes": FREE}}`
	for free, want := range map[string]bool{"5": true, "20": false} {
		text, err := Respond([]byte(strings.Replace(request, "FREE", free, 1)))
		if err != nil || strings.Contains(string(text), "budget_bytes and the reserve, 20 B and 0 B, are more than free_bytes, the "+free+" B") != want {
			t.Errorf("%s: %v in %s", free, err, text)
		}
	}
}

func TestWords(t *testing.T) {
	for want, err := range map[string]error{
		"units[0]: no": fmt.Errorf("%w: units[0]: no", planner.ErrInvalid),
		"a[31mb c":     errors.New("a\x1b[31mb\nc\u202e"),
		"plan m: the planner broke a promise of its own: x; this is a fault of optimem: report it with the request": fmt.Errorf("plan m: %w: x", search.ErrBroken),
	} {
		if got := Words(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := Words(errors.New("the largest page, " + strings.Repeat("x", 9000) + " is too large; give more")); len(got) > 1100 || !strings.HasSuffix(got, "give more") {
		t.Error(got)
	}
}
