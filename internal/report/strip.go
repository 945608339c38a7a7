package report

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/optimem/optimem/internal/label"
	"github.com/optimem/optimem/planner"
)

// mostRows is how many pages the table lists.
const mostRows = 200

// A strip is the picture of the plan: its pages in execution order, as wide as their bytes, in the colour of their placement.
type strip struct {
	Boxes  []box
	Ticks  []tick
	Legend []legend
	Text   string
	Rows   []pageRow // the same as a table
	Left   int       // pages that are not in the table
}

// A legend says what a colour stands for.
type legend struct{ Class, Name, Note string }

// A pageRow is a page in words.
type pageRow struct {
	Name, Placement, Bytes string
	Uses                   int
}

// classOf is the class, and so the colour, of a placement.
func classOf(p planner.Placement) string {
	switch {
	case p.Stays():
		return "resident"
	case p.Streams():
		return "copy"
	case p.ByCPU():
		return "cpu"
	}
	return "unread"
}

func newStrip(s Subject) strip {
	out := strip{Boxes: boxes("pages", s.pages()), Ticks: byteTicks(s.Manifest.Weights()), Text: "The pages in execution order."}
	for _, p := range planner.Placements() {
		var count int
		var size planner.Bytes
		for _, page := range s.Plan.Pages {
			if page.Placement == p {
				count++
				size += page.Bytes
			}
		}
		if count > 0 {
			one := legend{classOf(p), p.Meaning(), fmt.Sprintf("%s, %v", counted(count, "page"), size)}
			out.Legend = append(out.Legend, one)
			out.Text += fmt.Sprintf(" %s: %s.", one.Note, one.Name)
		}
	}
	out.Rows, out.Left = s.rows()
	return out
}

// pages are the marks of all pages.
func (s Subject) pages() (marks []mark) {
	total := float64(max(1, s.Manifest.Weights()))
	var at planner.Bytes
	for i, page := range s.Plan.Pages {
		name := label.Page(s.Manifest, page, longest)
		marks = append(marks, mark{
			from: float64(at) / total, to: float64(at+page.Bytes) / total, class: classOf(page.Placement), name: name, bytes: page.Bytes,
			tip: fmt.Sprintf("Page %d, %s: %v, %s", i+1, name, page.Bytes, s.used(page)),
		})
		at += page.Bytes
	}
	return marks
}

// used tells where a page lives, how often a forward reads a page, and when.
func (s Subject) used(page planner.Page) string {
	text := page.Placement.Phrase()
	uses := s.uses(page)
	switch {
	case !s.Manifest.Recorded:
		return text
	case len(uses) == 0:
		return "never read"
	}
	if first, last := uses[0].First+1, uses[0].Last+1; first == last {
		text += fmt.Sprintf(", read in step %d", first)
	} else {
		text += fmt.Sprintf(", read in steps %d to %d", first, last)
	}
	if more := len(uses) - 1; more > 0 {
		text += fmt.Sprintf(" and %s later", times(more))
	}
	return text
}

// uses are those of a page's units, where they touch or overlap as one.
func (s Subject) uses(page planner.Page) (out []planner.Use) {
	var all []planner.Use
	for _, u := range page.Units {
		all = append(all, s.Manifest.Units[u].Uses...)
	}
	slices.SortFunc(all, func(a, b planner.Use) int { return cmp.Or(a.First-b.First, a.Last-b.Last) })
	for _, use := range all {
		if last := len(out) - 1; last >= 0 && use.First <= out[last].Last+1 {
			out[last].Last = max(out[last].Last, use.Last)
			continue
		}
		out = append(out, use)
	}
	return out
}

// rows is the table: all pages, or the largest ones where there are many, in execution order.
func (s Subject) rows() (rows []pageRow, left int) {
	order := make([]int, len(s.Plan.Pages))
	for i := range order {
		order[i] = i
	}
	if left = len(order) - mostRows; left > 0 {
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(s.Plan.Pages[b].Bytes, s.Plan.Pages[a].Bytes) })
		order = order[:mostRows]
		slices.Sort(order)
	}
	for _, i := range order {
		page := s.Plan.Pages[i]
		rows = append(rows, pageRow{label.Page(s.Manifest, page, longest), page.Placement.String(), page.Bytes.String(), len(s.uses(page))})
	}
	return rows, max(0, left)
}

// byteTicks divide the weights into round parts.
func byteTicks(total planner.Bytes) (out []tick) {
	unit, size := byteUnit(total)
	step := round(float64(total) / size / 10)
	for i := 0; float64(i)*step*size <= float64(total); i++ {
		at := float64(i) * step * size / float64(max(1, total))
		text := trimmed(float64(i) * step)
		if i == 0 {
			text += " " + unit
		}
		out = append(out, tick{Left: percent(at), Label: text, Minor: i%2 == 1 || at > 0.97})
	}
	return out
}

// byteUnit is the unit in which sizes up to most are told, and its bytes.
func byteUnit(most planner.Bytes) (string, float64) {
	unit, size := "B", 1.0
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if float64(most) < 1024*size*1.5 {
			break
		}
		unit, size = next, 1024*size
	}
	return unit, size
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
