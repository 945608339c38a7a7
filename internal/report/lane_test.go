package report

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// place reads where a box lies, in shares.
func (b box) place(t rapid.TB) (from, to, filled float64) {
	filled = 1
	if _, err := fmt.Sscanf(string(b.Style), "left:%g%%;width:%g%%;--f:%g", &from, &to, &filled); err != nil {
		if _, err := fmt.Sscanf(string(b.Style), "left:%g%%;width:%g%%", &from, &to); err != nil {
			t.Fatalf("%s: %v", b.Style, err)
		}
	}
	return from / 100, (from + to) / 100, filled
}

// rowOf draws marks in order, wide and narrow, with gaps and without.
func rowOf(t *rapid.T) (marks []mark) {
	var at float64
	for i := range rapid.IntRange(1, 300).Draw(t, "marks") {
		at += rapid.SampledFrom([]float64{0, 0, 0, 1e-5, 3e-4, 0.01}).Draw(t, "gap")
		width := rapid.SampledFrom([]float64{1e-6, 1e-4, 5e-4, 0.002, 0.05}).Draw(t, "width")
		if at+width > 1 {
			break
		}
		marks = append(marks, mark{from: at, to: at + width, class: "copy", tip: fmt.Sprint("tip ", i), name: fmt.Sprint(i)})
		at += width
	}
	return marks
}

func TestBoxesStandForAllMarksAndNoMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		marks := rowOf(t)
		count, drawn, wanted, before := 0, 0.0, 0.0, 0.0
		for _, b := range boxes("copies", marks) {
			from, to, filled := b.place(t)
			if from < before-1e-6 || to > 1+1e-6 {
				t.Errorf("%+v starts before %v", b, before)
			}
			if b.Count == 1 && (b.Tip != marks[count].tip || math.Abs(from-marks[count].from) > 1e-6) {
				t.Errorf("%+v is not %+v", b, marks[count])
			}
			if b.Count > 1 && to-from > finest+1e-6 {
				t.Errorf("%+v is too wide for a group", b)
			}
			for _, m := range marks[count : count+b.Count] {
				wanted += m.to - m.from
			}
			count, before, drawn = count+b.Count, to, drawn+(to-from)*filled
		}
		if count != len(marks) || math.Abs(drawn-wanted) > 0.01*wanted+1e-3 {
			t.Errorf("%d of %d marks are drawn, %v of %v", count, len(marks), drawn, wanted)
		}
	})
}

func TestMarksOfSeveralClassesStandOnEachOther(t *testing.T) {
	const n = 5000
	marks, want := make([]mark, n), map[string]int{}
	for i := range marks {
		marks[i] = mark{from: float64(i) / n, to: float64(i+1) / n, class: []string{"unread", "copy", "resident", "copy"}[i%4], tip: "tip", name: "name"}
		want[marks[i].class]++
	}
	got, height, at := map[string]int{}, 0.0, 0.0
	for _, b := range boxes("pages", marks) {
		from, _, filled := b.place(t)
		if from != at && math.Abs(height-1) > 0.02 {
			t.Errorf("the boxes at %v are %v high", at, height)
		}
		if from != at {
			height, at = 0, from
		}
		got[b.Class], height = got[b.Class]+b.Count, height+filled
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestARowOfManyMarksHasFewBoxes(t *testing.T) {
	const n = 100_000
	marks := make([]mark, n)
	for i := range marks {
		marks[i] = mark{from: float64(i) / n, to: (float64(i) + 0.5) / n, class: "copy", tip: "tip", name: "name"}
	}
	got := boxes("copies", marks)
	if len(got) > 2/finest {
		t.Errorf("%d boxes", len(got))
	}
	if _, _, filled := got[7].place(t); filled != 0.5 {
		t.Errorf("a row that is half full is drawn as %v full", filled)
	}
}
