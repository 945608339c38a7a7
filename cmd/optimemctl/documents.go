package main

import (
	"encoding/json"

	"github.com/optimem/optimem/controller"
	"github.com/optimem/optimem/internal/report"
	"github.com/optimem/optimem/planner/contract"
	"github.com/optimem/optimem/planner/search"
)

// documents are the plan of a session and what it was made from, as docs/contract.md has them: each stands for itself, so
// that plan and report can be given it. They are null where no plan was made from a recording.
type documents struct {
	Manifest json.RawMessage `json:"manifest"`
	Machine  json.RawMessage `json:"machine"`
	Plan     json.RawMessage `json:"plan"`
}

// newDocuments writes the documents where they are wanted. What cannot be written is left out: the result stands without it.
func newDocuments(planned controller.Planned, wanted bool) (d documents) {
	if !wanted || !planned.Basis.Manifest.Recorded {
		return d
	}
	text, err := answerTo(planned).Encode()
	if err != nil {
		return d
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return documents{}
	}
	d.Plan = text
	return d
}

// answerTo is the plan as an answer, with the curve of budgets from a tenth of the weights to all of them and more.
func answerTo(planned controller.Planned) contract.Answer {
	basis := planned.Basis
	curve, err := search.Curve(basis.Manifest, basis.Machine, basis.Options, report.Budgets(basis.Manifest.Weights(), planned.Plan.Budget))
	if err != nil {
		curve = nil // the plan is worth more than its neighbours
	}
	return contract.NewAnswer(contract.FromPlanner(basis.Manifest), contract.Machine{Machine: basis.Machine}, planned.Plan, curve...).With(basis.Options)
}
