package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/optimem/optimem/internal/report"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/contract"
	"github.com/optimem/optimem/planner/search"
)

// A reading is what report was given: a run, or a script's sessions, or an answer of plan.
type reading struct {
	Sessions []json.RawMessage `json:"sessions"`
	Device   *string           `json:"device"` // a run has one
	Plan     json.RawMessage   `json:"plan"`   // a run under a plan has one
	Copies   json.RawMessage   `json:"copies"` // an answer has them
}

// readSubject finds what there is to draw, and what is to be said of the choice.
func readSubject(text []byte, session int) (s report.Subject, remark string, err error) {
	var file reading
	if bytes.HasPrefix(text, []byte("\uFEFF")) {
		return s, "", errors.New("it begins with a byte order mark (EF BB BF): save it as UTF-8 without one")
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return s, "", unreadable(err)
	}
	switch {
	case file.Sessions != nil:
		return readSession(file.Sessions, session)
	case session > 1:
		return s, "", fmt.Errorf("--session %d: it has one session only", session)
	case file.Device != nil:
		s, err = readRun(text)
	case file.Copies != nil:
		s, err = readAnswer(text)
	default:
		err = errors.New("it is neither what `run --json` nor what `plan --json` printed")
	}
	return s, "", err
}

// unreadable puts what is wrong with the JSON into words.
func unreadable(err error) error {
	var wrong *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &syntax) && syntax.Error() == "unexpected end of JSON input":
		return errors.New("the JSON ends too early: was the program that wrote it stopped?")
	case errors.As(err, &syntax):
		return fmt.Errorf("after %d bytes this is no JSON: %w; give what `run --json` or `plan --json` printed", syntax.Offset, err)
	case errors.As(err, &wrong) && wrong.Field != "":
		return fmt.Errorf("%s: %s is the wrong kind; was it printed by another version of optimemctl?", wrong.Field, wrong.Value)
	case errors.As(err, &wrong):
		return fmt.Errorf("it holds %s: give the object that `run --json` or `plan --json` printed", wrong.Value)
	}
	return err
}

// readSession reads one of a script's sessions, the first where none is wished.
func readSession(sessions []json.RawMessage, wished int) (s report.Subject, remark string, err error) {
	if len(sessions) == 0 {
		return s, "", errors.New("it has no session: the script did not call optimem.page or optimem.chunk")
	}
	if wished > len(sessions) {
		return s, "", fmt.Errorf("--session %d: it has %d sessions", wished, len(sessions))
	}
	if wished == 0 && len(sessions) > 1 {
		remark = fmt.Sprintf("has %d sessions: this is the first, --session N picks another", len(sessions))
	}
	s, err = readRun(sessions[max(1, wished)-1])
	return s, remark, err
}

// readRun reads the result of a run.
func readRun(text []byte) (s report.Subject, err error) {
	var r result
	if err := json.Unmarshal(text, &r); err != nil {
		return s, unreadable(err)
	}
	if len(r.Plan) == 0 || string(r.Plan) == "null" {
		return s, errors.New("it has no plan to draw: either nothing was paged, or it was printed by an older optimemctl; run it again with --json")
	}
	for name, ns := range map[string]*uint64{"period_ns": r.PeriodNS, "plain_period_ns": r.PlainPeriodNS, "bound_ns": r.BoundNS} {
		if ns != nil && *ns > longestTime {
			return s, fmt.Errorf("%s: %d ns is out of range", name, *ns)
		}
	}
	drawn, err := readAnswer(r.Plan)
	if err != nil {
		return s, fmt.Errorf("plan: %w", plain(err))
	}
	s = r.subject(drawn.Plan, drawn.Manifest, drawn.Machine)
	s.Curve, s.Remarks = drawn.Curve, drawn.Remarks
	return s, nil
}

// plain is a contradiction within a plan without the planner's word for it.
func plain(err error) error {
	if errors.Is(err, planner.ErrInvalid) {
		return &contract.Error{Text: contract.Words(err)}
	}
	return err
}

// longestTime is 2^50 ns, 13 days, as everywhere.
const longestTime = 1 << 50

// readAnswer reads an answer of plan.
func readAnswer(text []byte) (s report.Subject, err error) {
	answer, err := contract.ReadAnswer(text)
	if err != nil {
		return s, err
	}
	plan, err := answer.Plan()
	if err != nil {
		return s, err
	}
	s = report.Subject{
		Model: answer.Manifest.Model, Estimated: answer.Manifest.Estimated, Manifest: answer.Manifest.Manifest,
		Machine: answer.Machine.Machine, Plan: plan, Curve: answer.Curve, Remarks: answer.Notes,
	}
	if len(s.Curve) == 0 {
		wishes := answer.Options
		wishes.Mode = plan.Mode
		s.Curve, err = search.Curve(s.Manifest, s.Machine, wishes, report.Budgets(s.Manifest.Weights(), plan.Budget))
	}
	return s, err
}
