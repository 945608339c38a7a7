package ipc

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/optimem/optimem/planner"
)

func TestFiguresThatDoNotFitAreNamed(t *testing.T) {
	const huge = math.MaxUint64
	unit := func(u Unit) Manifest { return Manifest{Units: []Unit{u}} }
	tests := map[string]struct {
		manifest Manifest
		measured Measured
		want     string
	}{
		"bytes":           {unit(Unit{Bytes: huge}), Measured{}, "units[0].bytes"},
		"parameters":      {unit(Unit{Parameters: huge}), Measured{}, "units[0].parameters"},
		"uses":            {unit(Unit{Uses: []Use{{First: huge}}}), Measured{}, "units[0].uses"},
		"steps":           {Manifest{Steps: huge}, Measured{}, "steps"},
		"times":           {Manifest{Steps: 1}, Measured{StepComputeNS: []uint64{huge}}, "step_compute_ns"},
		"no such unit":    {unit(Unit{}), Measured{Held: []uint64{0, 1}}, "held[1] is 1, and there are 1 units"},
		"a unit twice":    {Manifest{Units: make([]Unit, 3)}, Measured{Held: []uint64{2, 2}}, "held[1] is 2, behind 2"},
		"out of order":    {Manifest{Units: make([]Unit, 3)}, Measured{Held: []uint64{2, 0}}, "held[1] is 0, behind 2"},
		"a list too long": {Manifest{Steps: 1}, Measured{StepCPUNS: []uint64{1, 2}}, "step_cpu_ns has 2 entries for 1 steps"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := ToManifest(test.manifest, test.measured); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAManifestArrivesWhole(t *testing.T) {
	wire := Manifest{Model: "m", Recorded: true, Steps: 2, Units: []Unit{{Path: "a", Kind: "Linear", Bytes: 512, Parameters: 128, Readers: []string{"a"}, Uses: []Use{{First: 0, Last: 1}}}, {Path: "b"}}}
	got, err := ToManifest(wire, Measured{StepComputeNS: []uint64{5, 6}, StepCPUNS: []uint64{7, 8}, StepActivations: []uint64{9, 10}, StepCrossings: []uint64{11, 12}, Held: []uint64{1}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Steps[1] != (planner.Step{Compute: 6, CPU: 8, Activations: 10, Crossing: 12}) || got.Units[0].Uses[0] != (planner.Use{First: 0, Last: 1}) || got.Weights() != 512 || got.Units[0].Held || !got.Units[1].Held {
		t.Errorf("got %+v", got)
	}
}

func TestAWishIsReadByThePlanner(t *testing.T) {
	got, err := ToOptions(Wish{Mode: "chunk", VRAM: "25%", MaxLayerSize: 7, MaxCapacity: "2GiB"})
	want := planner.Options{Mode: planner.ModeChunk, VRAM: planner.Share{MilliPercent: 25_000}, MaxLayerSize: 7, MaxCapacity: planner.Capacity{Bytes: 2 << 30}}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, wish := range []Wish{{VRAM: "lots"}, {MaxCapacity: "-1"}, {MaxLayerSize: math.MaxUint64}} {
		if _, err := ToOptions(wish); err == nil {
			t.Errorf("%+v was taken", wish)
		}
	}
}

func TestAPlanIsWrittenWhole(t *testing.T) {
	plan := planner.Plan{
		Version: 3, Mode: planner.ModePage, Eviction: []int{1}, Arena: 1024, Resident: 512, Budget: 2048, Reserve: 64, Period: 7, Bound: 6,
		Bottleneck: planner.BoundByLink,
		Pages:      []planner.Page{{Units: []int{0, 1}, Bytes: 1024, Placement: planner.Streamed}, {Units: []int{2}, Bytes: 512, Placement: planner.Resident}},
		Copies:     []planner.Copy{{Page: 0, Offset: 512, First: 1, Last: 2, After: 1}, {Page: 0, Offset: 0, First: 1, Last: 2, After: 1}},
		Laps:       2,
	}
	want := Plan{
		Version: 3, Eviction: []uint64{1}, ArenaBytes: 1024, ResidentBytes: 512, BudgetBytes: 2048, ReserveBytes: 64, PeriodNS: 7, BoundNS: 6,
		Pages:  []Page{{Units: []uint64{0, 1}, Bytes: 1024, Placement: "streamed"}, {Units: []uint64{2}, Bytes: 512, Placement: "resident"}},
		Copies: []Copy{{Page: 0, Offset: 512, First: 1, Last: 2, After: 1}, {Page: 0, Offset: 0, First: 1, Last: 2, After: 1}},
		Laps:   2,
	}
	if diff := cmp.Diff(want, FromPlan(plan)); diff != "" {
		t.Error(diff)
	}
}
