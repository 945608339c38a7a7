package contract

import (
	"errors"
	"strconv"

	"github.com/optimem/optimem/internal/strict"
	"github.com/optimem/optimem/planner"
)

// Options are the wishes of a request. The zero value of a field leaves the choice to the planner.
type Options struct {
	Mode         planner.Mode  // empty is page
	VRAM         planner.Share // replaces the budget of the machine
	Link         planner.Link  // replaces the link of the machine
	PagesAsGiven bool          // every unit is one page and one copy
	MaxLayerSize int64
	MaxCapacity  planner.Capacity
	Curve        []planner.Share // budgets for weights alone; nil: some around that of the plan; empty: none
}

type optionsDoc struct {
	Version      *whole    `json:"version,omitzero"`
	Mode         *name     `json:"mode,omitzero"`
	VRAM         *amount   `json:"vram,omitzero"`
	Link         *amount   `json:"link,omitzero"`
	PagesAsGiven bool      `json:"pages_as_given,omitzero"`
	MaxLayerSize *whole    `json:"max_layer_size,omitzero"`
	MaxCapacity  *amount   `json:"max_capacity,omitzero"`
	Curve        *[]amount `json:"curve,omitzero"`
}

// ParseMode reads the name of a mode.
func ParseMode(text string) (planner.Mode, error) {
	return planner.ParseMode(strict.Shown(text))
}

func (d optionsDoc) options() (Options, error) {
	o := Options{Mode: planner.ModePage, PagesAsGiven: d.PagesAsGiven, MaxLayerSize: or(d.MaxLayerSize, 0)}
	if err := checkVersion(d.Version); err != nil {
		return o, err
	}
	for _, part := range []struct {
		field string
		read  func() error
	}{
		{"mode", func() error { return parse(d.Mode, ParseMode, &o.Mode) }},
		{"vram", func() error { return parse(d.VRAM, planner.ParseShare, &o.VRAM) }},
		{"link", func() error { return parse(d.Link, ParseLink, &o.Link) }},
		{"max_capacity", func() error { return parse(d.MaxCapacity, planner.ParseCapacity, &o.MaxCapacity) }},
		{"curve", func() error { return d.curve(&o.Curve) }},
	} {
		if err := part.read(); err != nil {
			return o, strict.Within(part.field, asFault(err))
		}
	}
	return o, nil
}

// parse reads a text that may be left out.
func parse[N ~string, T any](text *N, read func(string) (T, error), into *T) (err error) {
	if text == nil {
		return nil
	}
	if *text == "" {
		return strict.Fault("", "it is empty: leave it out")
	}
	*into, err = read(string(*text))
	return err
}

// asFault makes an error of the planner the error of a field.
func asFault(err error) error {
	if e, ok := errors.AsType[*strict.Error](err); ok {
		return e
	}
	return &strict.Error{Text: err.Error()}
}

func (d optionsDoc) curve(into *[]planner.Share) error {
	if d.Curve == nil {
		return nil
	}
	if len(*d.Curve) > mostPoints {
		return strict.Fault("", "%d budgets are too many: give at most %d", len(*d.Curve), mostPoints)
	}
	*into = []planner.Share{}
	for i, text := range *d.Curve {
		var share planner.Share
		err := parse(&text, planner.ParseShare, &share)
		if err != nil {
			return strict.Within("["+strconv.Itoa(i)+"]", asFault(err))
		}
		*into = append(*into, share)
	}
	return nil
}
