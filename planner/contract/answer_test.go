package contract

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

// A document is JSON in the making.
type document = map[string]any

// anyManifest draws a manifest in the long form or in the short one.
func anyManifest(t *rapid.T) document {
	m := document{"model": rapid.String().Draw(t, "model")}
	steps := rapid.IntRange(0, 8).Draw(t, "steps")
	if steps > 0 {
		m["steps"] = rapid.SliceOfN(rapid.Custom(anyStep), steps, steps).Draw(t, "times")
	}
	var units []document
	for i := range rapid.IntRange(1, 9).Draw(t, "units") {
		u := document{"bytes": rapid.Int64Range(0, 1<<30).Draw(t, "bytes")}
		if steps == 0 {
			u = anyStep(t)
			u["bytes"] = rapid.Int64Range(0, 1<<30).Draw(t, "bytes")
		} else {
			u["uses"] = anyUses(t, steps)
		}
		if rapid.Bool().Draw(t, "named") {
			u["id"] = rapid.SampledFrom([]any{i, fmt.Sprint("unit ", i)}).Draw(t, "id")
		}
		if rapid.Bool().Draw(t, "held") {
			u["held"] = true
		}
		if rapid.Bool().Draw(t, "placed") {
			u["path"] = rapid.StringN(1, 5, -1).Draw(t, "path")
		}
		units = append(units, u)
	}
	m["units"] = units
	return m
}

func anyStep(t *rapid.T) document {
	s := document{}
	for _, field := range []string{"compute_ns", "cpu_ns", "activation_bytes", "crossing_bytes"} {
		if rapid.Bool().Draw(t, field) {
			s[field] = rapid.Int64Range(0, 1<<24).Draw(t, field)
		}
	}
	return s
}

func anyUses(t *rapid.T, steps int) [][2]int {
	uses := [][2]int{}
	for at := 0; at < steps && rapid.Bool().Draw(t, "use"); {
		first := rapid.IntRange(at, steps-1).Draw(t, "first")
		last := rapid.IntRange(first, min(steps-1, first+2)).Draw(t, "last")
		uses, at = append(uses, [2]int{first, last}), last+1
	}
	return uses
}

func anyRequest(t *rapid.T) document {
	return document{
		"manifest": anyManifest(t),
		"machine":  document{"link": document{"bytes_per_second": rapid.Int64Range(1_000_000_000, 60_000_000_000).Draw(t, "rate")}},
		"options": document{
			"mode":           rapid.SampledFrom([]string{"page", "chunk", "auto"}).Draw(t, "mode"),
			"vram":           rapid.SampledFrom([]any{"30%", "70%", "120%", "3GiB"}).Draw(t, "vram"),
			"pages_as_given": rapid.Bool().Draw(t, "as given"),
		},
	}
}

// written is a document as JSON. What an id clashes with is for the reader to find out.
func written(t rapid.TB, d document) []byte {
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// clashes tells whether an error is of an id that a drawn path took before.
func clashes(err error) bool {
	return err != nil && strings.Contains(err.Error(), "give every unit an id of its own")
}

func TestWhatTheSchemaTakesIsRead(t *testing.T) {
	schema := schemas(t)["manifest"]
	rapid.Check(t, func(r *rapid.T) {
		text := written(r, anyManifest(r))
		if err := schema.Validate(parsed(t, text)); err != nil {
			r.Fatalf("%v in %s", err, text)
		}
		if _, err := ReadManifest(text); err != nil && !clashes(err) {
			r.Fatalf("%v in %s", err, text)
		}
	})
}

func TestAnAnswerIsReadAsItWasWritten(t *testing.T) {
	known := schemas(t)
	rapid.Check(t, func(r *rapid.T) {
		text := written(r, anyRequest(r))
		if err := known["request"].Validate(parsed(t, text)); err != nil {
			r.Fatalf("%v in %s", err, text)
		}
		request, err := ReadRequest(text)
		if clashes(err) {
			return
		}
		if err != nil {
			r.Fatalf("%v in %s", err, text)
		}
		answer, err := request.Answer()
		var small *search.TooSmallError
		if errors.As(err, &small) {
			return
		}
		if err != nil {
			r.Fatalf("%v of %s", err, text)
		}
		if err := roundTrip(answer, known["answer"].Validate, func(b []byte) any { return parsed(t, b) }); err != nil {
			r.Fatalf("%v of %s", err, text)
		}
	})
}

// roundTrip tells what is lost when an answer is written and read.
func roundTrip(a Answer, validate func(any) error, parse func([]byte) any) error {
	text, err := a.Encode()
	if err != nil {
		return err
	}
	if err := validate(parse(text)); err != nil {
		return err
	}
	back, err := ReadAnswer(text)
	if err != nil {
		return fmt.Errorf("%w in %s", err, text)
	}
	if _, err := back.Plan(); err != nil {
		return err
	}
	if diff := cmp.Diff(a, back, cmp.AllowUnexported(Answer{}, ID{}), cmpopts.EquateEmpty()); diff != "" {
		return errors.New(diff)
	}
	again, err := back.Encode()
	if err == nil && string(again) != string(text) {
		err = fmt.Errorf("written again it is %s, not %s", again, text)
	}
	return err
}

// A ring of two laps, residents that are filled in groups, and a version of a session.
func TestLapsAndFillAreCarried(t *testing.T) {
	m, err := ReadManifest([]byte(`{"units": [{"bytes": 512}, {"bytes": 256}, {"bytes": 768}]}`))
	if err != nil {
		t.Fatal(err)
	}
	plan := planner.Plan{
		Version: 7, Mode: planner.ModePage, Budget: 2048, Arena: 1280, Resident: 256, Laps: 2, Period: 9, First: 12, Bound: 5,
		Bottleneck: planner.BoundByLink, Eviction: []int{1}, Fill: [][]int{{1}},
		Pages: []planner.Page{
			{Units: []int{0}, Bytes: 512, Placement: planner.Streamed}, {Units: []int{1}, Bytes: 256, Placement: planner.Resident},
			{Units: []int{2}, Bytes: 768, Placement: planner.Streamed},
		},
		Copies: []planner.Copy{
			{Page: 0, Offset: 0, First: 0, Last: 0, After: 1}, {Page: 2, Offset: 512, First: 2, Last: 2, After: 1},
			{Page: 0, Offset: 768, First: 0, Last: 0, After: 1}, {Page: 2, Offset: 0, First: 2, Last: 2, After: 1},
		},
	}
	schema := schemas(t)["answer"]
	answer := NewAnswer(m, Machine{}, plan, planner.Point{Budget: 9, Missing: 4})
	if err := roundTrip(answer, schema.Validate, func(b []byte) any { return parsed(t, b) }); err != nil {
		t.Error(err)
	}
	text, err := answer.Encode()
	if err != nil || !strings.Contains(string(text), `"laps": 2,`) || !strings.Contains(string(text), `"fill": [[1]],`) {
		t.Errorf("%v in %s", err, text)
	}
}

func TestALyingAnswerIsRefused(t *testing.T) {
	text, err := Respond([]byte(`{"manifest": {"units": [{"bytes": 4096, "compute_ns": 5}, {"bytes": 8192, "compute_ns": 5}]}, "options": {"vram": "80%"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for change, want := range map[string]string{
		`"laps": 1=>"laps": 0`:                                     "laps: a turn of the ring",
		`"mode": "page"=>"mode": "warp"`:                           "mode: ",
		`"placement": "streamed"=>"placement": "away"`:             "].placement: ",
		`"bottleneck": "=>"bottleneck": "x`:                        "bottleneck: ",
		`"units": [1]=>"units": [9]`:                               "pages[1].units[0]: the manifest has no unit 9",
		`"bytes": 4096, "parameters"=>"bytes": 4097, "parameters"`: "invalid: pages[0]",
		`"fill": [=>"fill": [[0, 0]`:                               "invalid: fill[0]",
		`"arena_bytes": =>"arena_bytes": 9`:                        "invalid: plan",
		`"period_ns": =>"period_ns": -`:                            "period_ns: -",
		`"version": 1=>"version": 3, "warp": 1`:                    "version: 3 is not known",
	} {
		old, replaced, _ := strings.Cut(change, "=>")
		if !strings.Contains(string(text), old) {
			t.Fatalf("%s is not in %s", old, text)
		}
		answer, err := ReadAnswer([]byte(strings.Replace(string(text), old, replaced, 1)))
		if err == nil {
			_, err = answer.Plan()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", change, err, want)
		}
	}
}

func TestTheCurveHoldsThePlan(t *testing.T) {
	const request = `{"manifest": {"units": [{"bytes": 4000000, "compute_ns": 90000}, {"bytes": 8000000, "compute_ns": 90000}, {"bytes": 2000000, "compute_ns": 90000}]},
		"machine": {"budget_bytes": 12500000}, "options": {"link": "pcie3x16"CURVE}}`
	for curve, want := range map[string]string{
		"":                            "[6250000 9375000 11250000 12500000 13750000 14000000]",
		`, "curve": []`:               "[]",
		`, "curve": ["10%", 9000000]`: "[1400000 9000000]",
	} {
		r, err := ReadRequest([]byte(strings.Replace(request, "CURVE", curve, 1)))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := r.Answer()
		if err != nil {
			t.Fatal(err)
		}
		var budgets []int64
		for _, p := range answer.Curve {
			budgets = append(budgets, int64(p.Budget))
			if p.Budget == 12_500_000 && p.Period != answer.plan.Period {
				t.Errorf("the plan has %v, its point %v", answer.plan.Period, p.Period)
			}
			if p.Budget < 8_000_000 && p.Missing != 8_000_000-p.Budget {
				t.Errorf("%v is short of %v", p.Budget, p.Missing)
			}
		}
		if got := fmt.Sprint(budgets); got != want {
			t.Errorf("%q: %s, want %s", curve, got, want)
		}
	}
}

func TestAPanicOfAPointIsTheCallers(t *testing.T) {
	defer func() {
		if cause := recover(); cause != "boom" {
			t.Errorf("got %v", cause)
		}
	}()
	parallel(3, func(i int) {
		if i == 1 {
			panic("boom")
		}
	})
}
