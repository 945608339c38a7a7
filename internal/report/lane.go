package report

import (
	"fmt"
	"html/template"
	"math"
	"strconv"

	"github.com/optimem/optimem/planner"
)

// finest is the share of a picture's width below which marks are drawn together.
const finest = 0.002

// Boxes at least as wide as these shares have an edge that tells them from their neighbours, on a wide page and on any.
const (
	edged    = 0.005
	allEdged = 0.015
)

// A mark is something that lies between two points of a picture's width, both from 0 to 1.
type mark struct {
	from, to float64
	class    string        // what it is drawn as
	tip      string        // what to say of it
	name     string        // what to call it in a group
	bytes    planner.Bytes // 0 where it has none
}

// classes are those of marks, in the order in which they stand on each other in a group, from below.
var classes = []string{"resident", "copy", "compute", "cpu", "crossing", "stall", "unread"}

// A box is a mark as it is drawn, or a group of small marks that are drawn as one.
type box struct {
	Class string
	Edge  string       // the class of its edge, "" where it is too narrow to have one
	Style template.CSS // where it lies, and how much of its height is filled
	Tip   string
	Count int // how many marks it stands for
}

// boxes draws marks that are in order and do not overlap. Neighbours that are narrower than the finest width are drawn
// together, those of each class as one box, whose height tells how much of the width they fill.
func boxes(plural string, marks []mark) (out []box) {
	for first := 0; first < len(marks); {
		last := first
		for last+1 < len(marks) && small(marks[first:last+2]) {
			last++
		}
		if last == first {
			out = append(out, newBox(marks[first]))
		} else {
			out = append(out, stacked(plural, marks[first:last+1])...)
		}
		first = last + 1
	}
	return out
}

// small tells whether marks can be drawn together.
func small(marks []mark) bool {
	for _, m := range marks[max(0, len(marks)-2):] {
		if m.to-m.from >= finest {
			return false
		}
	}
	return marks[len(marks)-1].to-marks[0].from <= finest
}

func newBox(m mark) box {
	return box{Class: m.class, Edge: edge(m.to - m.from), Style: placed(m.from, m.to, ""), Tip: m.tip, Count: 1}
}

// stacked draws a group, a box for each class on that of the class before.
func stacked(plural string, group []mark) (out []box) {
	from, to := group[0].from, group[len(group)-1].to
	var below float64
	for _, class := range classes {
		var some []mark
		for _, m := range group {
			if m.class == class {
				some = append(some, m)
			}
		}
		if len(some) == 0 {
			continue
		}
		share := min(1-below, filled(some)/max(to-from, 1e-12))
		b := box{Class: class, Count: len(some), Tip: together(plural, some, share)}
		b.Style = placed(from, to, fmt.Sprintf(";--f:%.2f", share))
		if below > 0 {
			b.Style += template.CSS(fmt.Sprintf(";--b:%.2f", below))
		}
		below += share
		out = append(out, b)
	}
	return out
}

// filled is the width of all of some marks.
func filled(some []mark) (width float64) {
	for _, m := range some {
		width += m.to - m.from
	}
	return width
}

// together is what to say of marks that are drawn as one and fill a share of their width.
func together(plural string, some []mark, share float64) string {
	if len(some) == 1 {
		return some[0].tip
	}
	text := fmt.Sprintf("%d %s from %s to %s", len(some), plural, some[0].name, some[len(some)-1].name)
	var size planner.Bytes
	for _, m := range some {
		size += m.bytes
	}
	if size > 0 {
		text += fmt.Sprintf(": %v", size)
	}
	if share < 0.995 {
		text += fmt.Sprintf(", %.0f %% of this stretch", 100*share)
	}
	return text
}

func edge(width float64) string {
	switch {
	case width >= allEdged:
		return " edge any"
	case width >= edged:
		return " edge"
	}
	return ""
}

// placed is where a box lies, in percent.
func placed(from, to float64, more string) template.CSS {
	return template.CSS("left:" + percent(from) + ";width:" + percent(to-from) + more)
}

// percent is short, for there are many of them.
func percent(share float64) string {
	return strconv.FormatFloat(math.Round(1e6*share)/1e4, 'f', -1, 64) + "%"
}

// A lane is a row of boxes.
type lane struct {
	Name  string
	Note  string // beside the name
	Boxes []box
}
