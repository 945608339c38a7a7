package report

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/optimem/optimem/internal/laps"
	"github.com/optimem/optimem/planner"
)

// written writes a page into a file.
func written(t *testing.T, path string, s Subject) {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, s); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 2<<20 {
		t.Errorf("%s has %d bytes", path, out.Len())
	}
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestThePageLoadsNothing(t *testing.T) {
	for name, s := range subjects(t) {
		var out bytes.Buffer
		if err := Write(&out, s); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		for _, address := range regexp.MustCompile(`(?i)(src|href|action|url)\s*[=(]\s*["']?[^"' >)]*`).FindAllString(text, -1) {
			if name != "hostile" && address != `href="data:,` {
				t.Errorf("%s: the page names %s", name, address)
			}
		}
		if strings.Contains(text, "<script>document.title") || strings.ContainsRune(text, '\u202e') || strings.ContainsRune(text, 0) {
			t.Errorf("%s: a name came through", name)
		}
		if !utf8.ValidString(text) {
			t.Errorf("%s: the page is not UTF-8", name)
		}
	}
}

// marks of every lane are the slices of the timeline.
func TestWhatIsDrawnIsTheTimeline(t *testing.T) {
	for name, s := range subjects(t) {
		l := s.laps(t)
		drawn := newTimeline(s, l)
		count, boxes := map[string]int{}, map[string]int{}
		for _, slice := range l.Within() {
			class := engineNames[slice.Engine].class
			if slice.Stall {
				class = "stall"
			}
			count[class]++
		}
		for _, lane := range drawn.Lanes {
			for _, b := range lane.Boxes {
				boxes[b.Class] += b.Count
			}
		}
		if diff := cmp.Diff(count, boxes); diff != "" || boxes["stall"] != l.Stalls() {
			t.Errorf("%s: %s, %d stalls", name, diff, l.Stalls())
		}
	}
}

func TestNoPeakIsLostWhereLevelsAreThinned(t *testing.T) {
	s := subjects(t)["big"]
	l := s.laps(t)
	few := thinned(l.Memory, l.Window, 100)
	highest := func(all []laps.Level) (high planner.Bytes) {
		for _, level := range all {
			high = max(high, level.Bytes)
		}
		return high
	}
	if len(few) > 300 || len(few) >= len(l.Memory) || highest(few) != l.Peak() || highest(few) > s.Plan.Budget {
		t.Errorf("%d of %d levels, up to %v of %v within %v", len(few), len(l.Memory), highest(few), l.Peak(), s.Plan.Budget)
	}
}
