package contract

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/optimem/optimem/internal/strict"
	"github.com/optimem/optimem/planner"
)

// A whole is a size or a time.
type whole = strict.Whole

// A name is a text.
type name = strict.Text

// or is the number, or a default where it was left out.
func or(w *whole, other int64) int64 {
	if w == nil {
		return other
	}
	return int64(*w)
}

func size(w *whole) planner.Bytes     { return planner.Bytes(or(w, 0)) }
func ns(w *whole) planner.Nanoseconds { return planner.Nanoseconds(or(w, 0)) }

// some is nil for 0, which is left out of a document.
func some[N ~int64](n N) *whole {
	if n == 0 {
		return nil
	}
	return this(n)
}

func this[N ~int64](n N) *whole {
	w := whole(n)
	return &w
}

func names(texts []string) []name {
	out := make([]name, len(texts))
	for i, text := range texts {
		out[i] = name(text)
	}
	return out
}

func texts(names []name) []string {
	if len(names) == 0 {
		return nil
	}
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	return out
}

func wholes(numbers []int) []whole {
	out := make([]whole, len(numbers))
	for i, n := range numbers {
		out[i] = whole(n)
	}
	return out
}

func ints(numbers []whole) []int {
	if len(numbers) == 0 {
		return nil
	}
	out := make([]int, len(numbers))
	for i, n := range numbers {
		out[i] = int(n)
	}
	return out
}

// An amount is a size as a number of bytes, or a text such as "6GiB" or "25%".
type amount string

// UnmarshalJSONFrom reads a number or a text.
func (a *amount) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	if decoder.PeekKind() == '0' {
		var w whole
		err := w.UnmarshalJSONFrom(decoder)
		*a = amount(strconv.FormatInt(int64(w), 10))
		return err
	}
	text, err := strict.ReadText(decoder, "a number or a text with a unit")
	*a = amount(text)
	return err
}

// A span is a use, [first, last].
type span [2]int

// UnmarshalJSONFrom reads a list of two steps.
func (s *span) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	kind := decoder.PeekKind()
	value, err := decoder.ReadValue()
	if err != nil {
		return err
	}
	inner := strings.Split(string(value[1:max(1, len(value)-1)]), ",")
	if kind != '[' || len(inner) != len(s) || strings.ContainsAny(string(value[1:]), "[{") {
		return strict.Fault("", "a use is a list of two steps, [first, last]")
	}
	for i, text := range inner {
		step, err := strict.ParseWhole(strings.TrimSpace(text))
		if err != nil || step >= mostSteps {
			return strict.Fault("", "%s is no step: give a whole number below the number of steps", strict.Shown(strings.TrimSpace(text)))
		}
		s[i] = int(step)
	}
	return nil
}

// read reads a document. The error for a document of another version names the version, whatever else is unknown in it.
func read(text []byte, doc any) error {
	err := strict.Read(text, doc)
	if err == nil {
		return nil
	}
	return cmp.Or(checkVersions(text, true), err)
}

// checkVersions wants a document, and all documents within it, to be of this version.
func checkVersions(text []byte, inside bool) error {
	var doc struct {
		Version  *whole         `json:"version"`
		Manifest jsontext.Value `json:"manifest"`
		Machine  jsontext.Value `json:"machine"`
		Options  jsontext.Value `json:"options"`
	}
	if json.Unmarshal(text, &doc) != nil {
		return nil // something else is wrong with it
	}
	if err := checkVersion(doc.Version); err != nil || !inside {
		return err
	}
	return cmp.Or(
		strict.Within("manifest", checkVersions(doc.Manifest, false)),
		strict.Within("machine", checkVersions(doc.Machine, false)),
		strict.Within("options", checkVersions(doc.Options, false)),
	)
}

// checkVersion wants a version that this package knows, or none.
func checkVersion(version *whole) error {
	if version != nil && *version != Version {
		return strict.Fault("version", "%d is not known: this optimem knows version %d", *version, Version)
	}
	return nil
}
