package planner

import "testing"

func TestModesAreReadByTheirNames(t *testing.T) {
	for _, mode := range []Mode{ModePage, ModeChunk, ModeAuto} {
		if got, err := ParseMode(string(mode)); err != nil || got != mode || mode.Meaning() == "" {
			t.Errorf("%s: got %q, %v, which means %q", mode, got, err, mode.Meaning())
		}
	}
	for _, name := range []string{"", "Page", "fast"} {
		want := `"` + name + `" is no mode: give page, chunk or auto`
		if got, err := ParseMode(name); err == nil || err.Error() != want {
			t.Errorf("%q: got %q, %v", name, got, err)
		}
	}
}

func TestAModeSaysWhatAPlanMayDo(t *testing.T) {
	for mode, want := range map[Mode]struct{ streams, usesCPU, mixes, endsInRAM bool }{
		ModePage:  {streams: true},
		ModeChunk: {usesCPU: true, endsInRAM: true},
		ModeAuto:  {streams: true, usesCPU: true, mixes: true},
		"":        {streams: true},
	} {
		got := struct{ streams, usesCPU, mixes, endsInRAM bool }{mode.Streams(), mode.UsesCPU(), mode.Mixes(), mode.EndsInRAM()}
		if got != want {
			t.Errorf("%q: got %+v, want %+v", mode, got, want)
		}
	}
}
