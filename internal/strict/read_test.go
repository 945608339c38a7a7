package strict

import (
	"strings"
	"testing"
)

type inner struct {
	Size Whole `json:"size"`
	Name Text  `json:"name,omitzero"`
}

type outer struct {
	Flag   bool             `json:"flag"`
	Parts  []inner          `json:"parts"`
	Rate   float64          `json:"rate"`
	Within *inner           `json:"within,omitzero"`
	Named  map[string]inner `json:"named"`
}

func TestWhatIsRefusedIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		``:                                     "the document is empty: give a JSON object",
		` 3`:                                   "the document is a number: give a JSON object",
		`"x"`:                                  "the document is a text: give a JSON object",
		`nul`:                                  "the document is null: give a JSON object",
		`{} x`:                                 "after 2 bytes the document is over and something follows it: give one object",
		`{"flag": 1}`:                          "flag: a number is the wrong kind: give true or false",
		`{"parts": {}}`:                        "parts: an object is the wrong kind: give a list",
		`{"parts": [3]}`:                       "parts[0]: a number is the wrong kind: give an object",
		`{"parts": [{"size": "3"}]}`:           "parts[0].size: a text is the wrong kind: give a whole number",
		`{"parts": [{}, {"size": -0.5}]}`:      "parts[1].size: -0.5 is negative: give a whole number from 0 to 1125899906842624",
		`{"parts": [{"size": 1e16}]}`:          "parts[0].size: 1e16 is too large: give a whole number from 0 to 1125899906842624 (2^50)",
		`{"parts": [{"size": 0.5}]}`:           "parts[0].size: 0.5 is a fraction: give a whole number",
		`{"parts": [{"name": ["x"]}]}`:         "parts[0].name: a list is the wrong kind: give a text",
		`{"parts": [{"sise": 1}]}`:             "parts[0].sise: there is no such field: leave it out, or give one of size, name",
		`{"within": {"x": 1}}`:                 "within.x: there is no such field: leave it out, or give one of size, name",
		`{"named": {"a b": {"x": 1}}}`:         "named.a b.x: there is no such field: leave it out",
		`{"x": 1}`:                             "x: there is no such field: leave it out, or give one of flag, parts, rate, within, named",
		`{"rate": "fast"}`:                     "rate: a text is the wrong kind: give a number",
		`{"rate": null}`:                       "rate: null is no value: leave the field out",
		`{"rate": 1, "flag": true, "rate": 2}`: "rate: it is there twice: keep one",
		`{"rate": 1`:                           "the JSON ends too early, after 10 bytes: is the text cut off?",
		`{"rate": 01}`:                         "after 10 bytes this is no JSON any more",
		`{"` + strings.Repeat("x", 90_000) + `": 1}`: strings.Repeat("x", 60) + "...: there is no such field",
		strings.Repeat(`{"deep":`, 20_000):           strings.Repeat("deep.", 40) + "…: after 80000 bytes",
		"\uFEFF{}":                                   "the document begins with a byte order mark (EF BB BF): save it",
		"{\"a\\u001bb\": 1}":                         `"a\x1bb": there is no such field`,
	} {
		var doc outer
		err := Read([]byte(text), &doc)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestWhatIsTaken(t *testing.T) {
	for text, want := range map[string]Whole{"5": 5, "5.0": 5, "5e0": 5, "-0": 0, "1125899906842624": 1 << 50, "1.125899906842624e15": 1 << 50} {
		var doc outer
		if err := Read([]byte(`{"parts": [{"size": `+text+`}]}`), &doc); err != nil || doc.Parts[0].Size != want {
			t.Errorf("%s: %v, %v", text, doc.Parts, err)
		}
	}
	var doc outer
	if err := ReadForeign([]byte(`{"rate": null, "within": null, "flag": true}`), &doc); err != nil || !doc.Flag {
		t.Errorf("%+v, %v", doc, err)
	}
}

func TestWithin(t *testing.T) {
	for want, err := range map[string]error{
		"a: x":      Within("a", Fault("", "x")),
		"a.b: x":    Within("a", Fault("b", "x")),
		"a[3].b: x": Within("a", Fault("[3].b", "x")),
	} {
		if err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := Within("a", nil); err != nil {
		t.Error(err)
	}
}

func TestAForeignTextIsShort(t *testing.T) {
	if got := Shown(strings.Repeat("é", 100)); got != strings.Repeat("é", 60)+"..." {
		t.Error(got)
	}
	if got := Shown("a\nb\x1b"); got != `"a\nb\x1b"` {
		t.Error(got)
	}
}

// FuzzRead wants a refusal to be an *Error, whatever the text is.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"parts": [{"size": 1e400, "name": "x"}], "named": {"3": {"size": 1}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var doc outer
		if err := Read(text, &doc); err != nil && err.Error() == "" {
			t.Error("an error says nothing")
		}
	})
}
