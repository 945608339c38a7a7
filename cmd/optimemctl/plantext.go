package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"regexp"
	"text/tabwriter"

	"github.com/optimem/optimem/internal/label"
	"github.com/optimem/optimem/internal/report"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/contract"
)

// A planSheet is an answer for people.
type planSheet struct {
	contract.Answer
	plan      planner.Plan
	simulated bool
}

var lineEnds = regexp.MustCompile(` +\n`)

// text is one fact a line, and what other budgets would give.
func (s planSheet) text() []byte {
	var out bytes.Buffer
	s.facts(&out)
	if len(s.Curve) > 0 {
		_, _ = fmt.Fprintln(&out)
		s.budgets(&out)
	}
	return lineEnds.ReplaceAll(out.Bytes(), []byte("\n"))
}

func (s planSheet) facts(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", name, label.Line(fmt.Sprintf(format, args...)))
	}
	words := result{Mode: string(s.plan.Mode), ResidentBytes: s.plan.Resident, Bottleneck: string(s.plan.Bottleneck)}
	words.countPages(s.plan)
	line("model", "%s", cmp.Or(s.Manifest.Model, "without a name"))
	line("link", "%s", contract.LinkText(s.Machine.Link))
	line("mode", "%s", words.modeText())
	line("weights", "%v", s.Manifest.Weights())
	line("budget", "%s", s.budgetText())
	line("pages", "%s", words.pagesText())
	if s.plan.Arena > 0 {
		line("arena", "%v that streamed pages take turns in", s.plan.Arena)
	}
	line("period", "%s", s.periodText())
	line("bound", "%s", s.boundText())
	if s.plan.First > 0 {
		line("first forward", "%s, with nothing on the device yet", s.time(s.plan.First))
	}
	line("bottleneck", "%s", s.bottleneckText(words))
	for _, note := range s.Notes {
		line("note", "%s", note)
	}
	_ = table.Flush()
}

func (s planSheet) budgetText() string {
	text := fmt.Sprintf("%v for weights", s.plan.Budget)
	if s.plan.Reserve > 0 {
		text += fmt.Sprintf(", and %v reserved for all else", s.plan.Reserve)
	}
	return text
}

// computes tells whether any time on the device is known.
func (s planSheet) computes() bool {
	for _, step := range s.Manifest.Steps {
		if step.Compute > 0 {
			return true
		}
	}
	return false
}

func (s planSheet) time(ns planner.Nanoseconds) string {
	if ns == 0 {
		return "not known"
	}
	return report.Duration(ns) + s.origin()
}

// origin says what kind of times a figure is made from.
func (s planSheet) origin() string {
	switch {
	case s.simulated:
		return " (simulated)"
	case s.Manifest.Estimated && s.computes():
		return " (estimated)"
	}
	return ""
}

func (s planSheet) periodText() string {
	switch {
	case s.plan.Period == 0:
		return "not known: nothing is brought, and how long the computation takes is not known"
	case !s.computes():
		return s.time(s.plan.Period) + " per forward for the link's part alone: how long the computation takes is not known"
	}
	return report.Duration(s.plan.Period) + " per forward" + s.origin()
}

func (s planSheet) boundText() string {
	if s.plan.Bound == 0 {
		return "not known"
	}
	text := s.time(s.plan.Bound) + ": no schedule within the budget is faster; the plan "
	if s.plan.Period == s.plan.Bound {
		return text + "reaches it"
	}
	return text + fmt.Sprintf("is %s above it", report.Percent(s.plan.Gap()))
}

func (s planSheet) bottleneckText(words result) string {
	if !s.computes() && s.plan.Bottleneck == planner.BoundByLink {
		return "not known: only the link's part is"
	}
	return words.bottleneckText()
}

// budgets prints what less and more memory would give.
func (s planSheet) budgets(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "budget\tchange\tperiod\tbound")
	for _, p := range s.Curve {
		if p.Missing > 0 {
			_, _ = fmt.Fprintf(table, "%v\t%s\tdoes not fit: needs %v\t\n", p.Budget, s.change(p.Budget), p.Budget+p.Missing)
			continue
		}
		_, _ = fmt.Fprintf(table, "%v\t%s\t%s\t%s\n", p.Budget, s.change(p.Budget), s.pointTime(p.Period), s.pointTime(p.Bound))
	}
	_ = table.Flush()
}

// pointTime is a time of the curve; 0 is one that nobody knows, or of the link where it has nothing to do.
func (s planSheet) pointTime(ns planner.Nanoseconds) string {
	switch {
	case ns > 0:
		return report.Duration(ns)
	case !s.plan.Mode.UsesCPU() && !s.computes():
		return "none"
	}
	return "not known"
}

// change is a budget beside the plan's own, which is taken for the weights where it is more.
func (s planSheet) change(budget planner.Bytes) string {
	weights := s.Manifest.Weights()
	own := min(s.plan.Budget, weights)
	text := "this plan"
	if budget != own && own > 0 {
		text = fmt.Sprintf("%+.0f %%", math.Round(100*float64(budget-own)/float64(own)))
	}
	if budget == weights {
		text += ", all weights"
	}
	return text
}
