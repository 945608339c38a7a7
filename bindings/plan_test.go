package bindings

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPlanGivesAnAnswerOrAnError(t *testing.T) {
	request := `{"manifest": {"units": [{"bytes": 4096}, {"bytes": 8192}]}, "options": {"vram": "70%"}}`
	if answer, err := Plan(request); err != nil || !strings.Contains(answer, `"period_ns"`) {
		t.Errorf("two units gave %q, %v", answer, err)
	}
	if answer, err := Plan(`{"manifest": {"units": []}}`); err == nil || answer != "" {
		t.Errorf("a manifest without units gave %q, %v", answer, err)
	}
}

func TestNothingThatCCannotCarryGetsThrough(t *testing.T) {
	for name, respond := range map[string]func([]byte) ([]byte, error){
		"a panic":                   func([]byte) ([]byte, error) { panic("index\x00out\xff") },
		"a panic with an error":     func([]byte) ([]byte, error) { panic(errors.New("nil\x00map\xff")) },
		"an error with NUL":         func([]byte) ([]byte, error) { return nil, errors.New("a\x00b\xff") },
		"an answer with NUL":        func([]byte) ([]byte, error) { return []byte("a\x00b\xff"), nil },
		"a runtime error":           func(b []byte) ([]byte, error) { return b[len(b)+1:], nil },
		"an answer beside an error": func([]byte) ([]byte, error) { return []byte("half"), errors.New("whole") },
	} {
		answer, err := guarded(respond, "{}")
		text := answer
		if err != nil {
			text = err.Error()
		}
		if (err != nil) == (answer != "") || strings.Contains(text, "\x00") || !utf8.ValidString(text) || text == "" {
			t.Errorf("%s gave %q, %v", name, answer, err)
		}
	}
}

func TestAnErrorMovesNoTerminal(t *testing.T) {
	for _, request := range []string{
		"{\"a\x1b[31m", `{"manifest": {"units": [{"bytes": 1, "a\u001b\u0000": 2}]}}`,
		`{"manifest": {"units": [{"bytes": 9, "path": "a\u001b[31m\n\u202e"}]}, "machine": {"budget_bytes": 1}}`,
	} {
		if _, err := Plan(request); err == nil || strings.ContainsAny(err.Error(), "\x1b\x00\n\u202e") {
			t.Errorf("%s gave %q", request, err)
		}
	}
}
