package planner

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryPlacementHasOneRowAndANameOfItsOwn(t *testing.T) {
	all := slices.Sorted(slices.Values(Placements()))
	for i, p := range all {
		if int(p) != i {
			t.Fatalf("rows are for placements %v: there is none or more than one for %d", all, i)
		}
		if again, err := ParsePlacement(p.String()); err != nil || again != p {
			t.Errorf("%v is read as %v, %v", p, again, err)
		}
		if p.Phrase() == "" || p.Meaning() == "" {
			t.Errorf("%v has no words for people", p)
		}
	}
	if !slices.Contains(all, Unread) {
		t.Errorf("only %v have rows", all)
	}
}

func TestAPageIsAtOnePlace(t *testing.T) {
	for _, p := range Placements() {
		places := 0
		for _, is := range []bool{p.Stays(), p.Streams(), p.ByCPU(), p.Unread()} {
			if is {
				places++
			}
		}
		if places != 1 {
			t.Errorf("%v: the bytes are at %d places", p, places)
		}
	}
}

func TestAnUnknownPlacementIsQuoted(t *testing.T) {
	for _, name := range []string{"", "away", "Resident", "placement 9"} {
		if p, err := ParsePlacement(name); err == nil || !strings.Contains(err.Error(), `"`+name+`" is no placement: give one of [resident streamed`) {
			t.Errorf("%q: got %v, %v", name, p, err)
		}
	}
	if got := Placement(9).String(); got != "placement 9" {
		t.Errorf("got %q", got)
	}
}
