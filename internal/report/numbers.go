package report

import (
	"cmp"
	"fmt"
	"regexp"

	"github.com/optimem/optimem/internal/label"
	"github.com/optimem/optimem/planner"
)

// A fact is a line of the table of numbers.
type fact struct{ Name, Value string }

// numbers is the table.
func (s Subject) numbers() []fact {
	facts := []fact{{"Model", cmp.Or(label.Short(s.Model, 200), "without a name")}}
	facts = append(facts, s.place()...)
	facts = append(facts, s.sizes()...)
	facts = append(facts, s.speeds()...)
	if s.Run != nil {
		facts = append(facts, s.Run.facts()...)
	}
	for i := range facts {
		facts[i].Value = unbroken.ReplaceAllString(facts[i].Value, "$1\u00a0$2")
	}
	return facts
}

// unbroken finds the spaces between numbers and their units.
var unbroken = regexp.MustCompile(`(\d) (%|(?:B|[KMGT]iB|[num]?s|GB/s)\b)`)

func (s Subject) place() (facts []fact) {
	if s.Device != "" {
		facts = append(facts, fact{"Device", label.Short(s.Device, 200)})
	}
	switch {
	case s.Run == nil && s.Estimated:
		facts = append(facts, fact{"Times", "estimates, not measured"})
	case s.Run == nil && !s.Simulated:
		facts = append(facts, fact{"Times", "predicted from what the manifest says"})
	case s.Simulated:
		facts = append(facts, fact{"Simulated", "yes: all times are those of a simulated card, not of a GPU"})
	default:
		facts = append(facts, fact{"Simulated", "no"})
	}
	if link := s.Machine.Link; link.Rate > 0 {
		facts = append(facts, fact{"Link", fmt.Sprintf("%.1f GB/s, and %s per copy", float64(link.Rate)/1e9, Duration(link.Latency))})
	}
	return append(facts, fact{"Mode", string(s.Plan.Mode)})
}

func (s Subject) sizes() []fact {
	p, weights := s.Plan, s.Manifest.Weights()
	facts := []fact{
		{"Weights", weights.String()},
		{"Budget", fmt.Sprintf("%v for weights, %s, and %v kept for all else", p.Budget, part(p.Budget, weights), p.Reserve)},
		{"Resident", fmt.Sprintf("%v always on the card", p.Resident)},
	}
	if p.Arena > 0 {
		facts = append(facts, fact{"Arena", fmt.Sprintf("%v that the others take turns in%s", p.Arena, turn(p))})
	}
	return facts
}

// turn says how many forwards one turn of the ring takes, where that is not one.
func turn(p planner.Plan) string {
	if p.Laps <= 1 {
		return ""
	}
	return fmt.Sprintf(", once around in %d forwards", p.Laps)
}

func part(budget, weights planner.Bytes) string {
	if budget > weights {
		return "more than all of them take"
	}
	return fmt.Sprintf("%.0f %% of them", 100*float64(budget)/float64(max(1, weights)))
}

// speeds are the times, measured and predicted, beside the bound.
func (s Subject) speeds() []fact {
	c := s.Certificate()
	measured := "not measured"
	if c.Measured {
		measured = Duration(s.Run.Period)
		if s.Simulated {
			measured += ", simulated"
		}
	}
	facts := []fact{{"Forward, measured", measured}, {"Forward, predicted", known(s.Plan.Period)}}
	if s.Plan.First > 0 {
		facts = append(facts, fact{"First forward, predicted", known(s.Plan.First)})
	}
	return append(facts, fact{"Bound", known(c.Bound) + s.latest()}, fact{"Gap to the bound", gap(c)}, fact{"Bottleneck", bottlenecks[s.Plan.Bottleneck]})
}

// latest says of a bound that it is not the one that the plan was made with.
func (s Subject) latest() string {
	if s.Run == nil || s.Run.Bound <= 0 || s.Run.Bound == s.Plan.Bound {
		return ""
	}
	return fmt.Sprintf(", by the latest times; %s when the plan was made", known(s.Plan.Bound))
}

func known(ns planner.Nanoseconds) string {
	if ns <= 0 {
		return "not known"
	}
	return Duration(ns)
}

func gap(c Certificate) string {
	if c.Bound <= 0 || c.Period <= 0 {
		return "not known"
	}
	return Percent(c.Gap())
}

var bottlenecks = map[planner.Bottleneck]string{
	planner.BoundByCompute: "compute: the card works without waiting",
	planner.BoundByLink:    "link: copies take longer than the computation",
	planner.BoundByMemory:  "memory: more of the card would shorten the forward",
	planner.BoundByCPU:     "CPU: what it computes takes the longest",
	planner.BoundUnknown:   "not known",
}

func (r *Run) facts() (facts []fact) {
	add := func(name, value string) { facts = append(facts, fact{name, value}) }
	add("Forwards", fmt.Sprint(r.Forwards))
	if r.Plain > 0 {
		add("Forward, plain model", Duration(r.Plain))
	}
	if r.Peak > 0 {
		add("Peak on the card", r.Peak.String())
	}
	if r.Moved > 0 {
		add("Moved over the link", r.Moved.String()+" in all forwards")
	}
	add("Result", r.result())
	for _, note := range r.Notes {
		add("Note", label.Short(note, 500))
	}
	return facts
}

func (r *Run) result() string {
	switch {
	case r.Equal == nil:
		return "not compared with the plain model's"
	case *r.Equal:
		return "equal to the plain model's, bit for bit"
	}
	return "differs from the plain model's: do not use it"
}
