package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTailKeepsTheLastLines(t *testing.T) {
	var many strings.Builder
	for i := range 50 {
		fmt.Fprintf(&many, "line %d\n", i)
	}
	var lastTwenty []string
	for i := 30; i < 50; i++ {
		lastTwenty = append(lastTwenty, fmt.Sprintf("line %d", i))
	}
	for name, test := range map[string]struct {
		written string
		want    []string
	}{
		"nothing":                            {"", nil},
		"the last twenty of many":            {many.String(), lastTwenty},
		"a line without an end":              {"one\ntwo", []string{"one", "two"}},
		"empty lines are left out":           {"one\n\n  \ntwo\n", []string{"one", "two"}},
		"a progress bar is one line":         {"10 %\r50 %\r100 %\ndone\n", []string{"100 %", "done"}},
		"lines may end as on Windows":        {"one\r\ntwo\r\n", []string{"one", "two"}},
		"a long line is cut":                 {strings.Repeat("x", 10_000) + "\nend", []string{strings.Repeat("x", tailWidth), "end"}},
		"what moves the cursor is left out":  {"a\x1b[2Jb\tc\x00\n", []string{"a[2Jb c"}},
		"what is not UTF-8 is left out":      {"caf\xe9\n", []string{"caf"}},
		"a restarted line with nothing more": {"50 %\r", []string{"50 %"}},
	} {
		t.Run(name, func(t *testing.T) {
			kept := &tail{}
			for _, b := range []byte(test.written) { // the worst cutting into pieces
				_, _ = kept.Write([]byte{b})
			}
			if diff := cmp.Diff(test.want, kept.last()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestTailGoesOnWhenNobodyReads(t *testing.T) {
	kept := &tail{next: brokenWriter{}}
	if n, err := kept.Write([]byte("one\n")); n != 4 || err != nil {
		t.Errorf("wrote %d: %v", n, err)
	}
}
