package planner

import (
	"fmt"
	"strings"
)

// A Mode is what a user asked for. What modes differ in stands in a row of the table modes, and nowhere else.
type Mode string

// The modes.
const (
	ModePage  Mode = "page"
	ModeChunk Mode = "chunk"
	ModeAuto  Mode = "auto"
)

// A manner is what there is to know of a mode.
type manner struct {
	is      Mode
	meaning string // for people

	streams  bool // pages may cross the link for each use; else one run of pages is resident
	usesCPU  bool // the CPU may compute pages
	endInRAM bool // the input and the result of a forward are in RAM, not on the device
}

// modes has one row per mode, in the order in which people are shown them.
var modes = []manner{
	{is: ModePage, streams: true, meaning: "every module computes on the device"},
	{is: ModeChunk, usesCPU: true, endInRAM: true, meaning: "one part lives on the device, the CPU computes the rest"},
	{is: ModeAuto, streams: true, usesCPU: true, meaning: "each weight stays, is streamed or is computed with on the CPU, whatever is fastest"},
}

// Modes returns all modes, in the order in which people are shown them.
func Modes() []Mode {
	all := make([]Mode, len(modes))
	for i, row := range modes {
		all[i] = row.is
	}
	return all
}

// ModeNames lists the modes for people: "page, chunk or auto".
func ModeNames() string {
	var text strings.Builder
	for i, mode := range Modes() {
		switch {
		case i == len(modes)-1:
			text.WriteString(" or ")
		case i > 0:
			text.WriteString(", ")
		}
		text.WriteString(string(mode))
	}
	return text.String()
}

// ParseMode reads the name of a mode. The error lists the names that there are.
func ParseMode(name string) (Mode, error) {
	if mode := Mode(name); mode.Known() {
		return mode, nil
	}
	return "", fmt.Errorf("%q is no mode: give %s", name, ModeNames())
}

// row finds the facts. A mode that is not known has those of no wish: pages stream, and the device computes all of them.
func (mode Mode) row() manner {
	for _, row := range modes {
		if row.is == mode {
			return row
		}
	}
	return manner{streams: true}
}

// Known tells whether there is such a mode.
func (mode Mode) Known() bool { return mode.row().is != "" }

// Meaning explains the mode to people; it is empty for an unknown mode.
func (mode Mode) Meaning() string { return mode.row().meaning }

// Streams tells whether pages may cross the link for each use. Where they may not, one run of pages is resident and the CPU
// computes the others.
func (mode Mode) Streams() bool { return mode.row().streams }

// UsesCPU tells whether the CPU may compute pages.
func (mode Mode) UsesCPU() bool { return mode.row().usesCPU }

// Mixes tells whether a plan may stream pages and may leave pages to the CPU, so that it needs the times of both.
func (mode Mode) Mixes() bool { return mode.Streams() && mode.UsesCPU() }

// EndsInRAM tells whether the input and the result of a forward are in RAM; else they are on the device.
func (mode Mode) EndsInRAM() bool { return mode.row().endInRAM }
