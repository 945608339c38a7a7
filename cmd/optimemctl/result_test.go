package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/optimem/optimem/controller"
	"github.com/optimem/optimem/controller/controllertest"
	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/probe"
)

// sample is a session that came to its end.
func sample() record {
	hello := controllertest.Hello()
	plan := planner.Plan{
		Version: 1, Mode: planner.ModePage, Arena: 16 << 20, Resident: 26 << 20, Budget: 42 << 20, Reserve: 96 << 20,
		Pages: []planner.Page{
			{Placement: planner.Resident}, {Placement: planner.Streamed}, {Placement: planner.Streamed}, {Placement: planner.Unread},
		},
		Period: 16_400_000, Bound: 15_700_000, Bottleneck: planner.BoundByLink,
	}
	newer := plan
	newer.Version, newer.Period = 2, 1
	return record{
		opened:   controller.Opened{Of: "s1", PID: 4242, Spawned: true, Hello: *hello},
		manifest: ipc.Manifest{Model: "ResNet", WeightsBytes: 178 << 20},
		plans:    map[uint64]controller.Planned{1: {Plan: plan}, 2: {Plan: newer}}, latest: 2,
		weighed: controller.Weighed{Budget: plan.Budget, Bound: 15_300_000},
		report: ipc.Report{
			PlanVersion: 1, Forwards: 5, PeriodNS: 16_598_000, H2DBytes: 640 << 20, DevicePeakBytes: 131 << 20,
			ActivationBytes: 88 << 20, PinnedBytes: 178 << 20,
		},
		outcome:  ipc.Outcome{Forwards: 5, PlainPeriodNS: 8_150_000, Equal: "equal", Notes: []string{"tabby cat\x1b[2J, 93 %"}},
		finished: true, over: true,
	}
}

func model() runRequest {
	return runRequest{target: target{text: "torchvision:resnet101"}, flags: runFlags{mode: "page"}}
}

func TestResults(t *testing.T) {
	chunk := sample()
	plan := chunk.plans[1].Plan
	plan.Mode, plan.Bottleneck = planner.ModeChunk, planner.BoundByCPU
	plan.Pages = []planner.Page{{Placement: planner.Resident}, {Placement: planner.OnCPU}}
	chunk.plans = map[uint64]controller.Planned{1: {Plan: plan}}
	chunk.outcome.Equal, chunk.outcome.PlainPeriodNS = equalNo, 0
	chunk.report.Misses = 3
	chunk.opened.Hello.Device.Index, chunk.opened.Hello.Device.Simulated = 1, false
	plain := record{
		opened:  controller.Opened{Of: "s1", Hello: ipc.Hello{Device: ipc.Device{Kind: "cpu"}}},
		outcome: ipc.Outcome{Forwards: 5, PlainPeriodNS: 950, Equal: "equal"}, finished: true, over: true,
	}
	early := sample()
	early.report, early.outcome, early.finished, early.plans = ipc.Report{}, ipc.Outcome{}, false, map[uint64]controller.Planned{}
	early.weighed = controller.Weighed{}
	for name, test := range map[string][]record{
		"page":    {sample()},
		"chunk":   {chunk},
		"cpu":     {plain},
		"no_plan": {early},
		"two":     {sample(), chunk},
		"none":    {},
	} {
		for kind, print := range map[string]func(*bytes.Buffer, []result) error{
			"txt":  func(b *bytes.Buffer, r []result) error { return printText(b, model().target, r) },
			"json": func(b *bytes.Buffer, r []result) error { return printJSON(b, model().target, r) },
		} {
			t.Run(name+" as "+kind, func(t *testing.T) {
				var out bytes.Buffer
				if err := print(&out, ending{records: test}.results(model())); err != nil {
					t.Fatal(err)
				}
				golden(t, name+"."+kind+".golden", out.Bytes())
			})
		}
	}
}

func TestJudge(t *testing.T) {
	died := func(code int, signal syscall.Signal, lines ...string) error {
		return &controller.ExitError{PID: 4242, Code: code, Signal: signal, Lines: lines}
	}
	refused := record{refused: true, refusal: controller.Refused{Code: ipc.CodeBadInput, Text: "too small"}}
	failed := func(code string) record {
		return record{failed: true, failure: controller.Failure{Code: code, Text: "so it was"}}
	}
	lost := sample()
	lost.finished, lost.ended = false, controller.Ended{State: controller.Lost, Err: errors.New("ended without bye")}
	different := sample()
	different.outcome.Equal = equalNo
	unfinished := sample()
	unfinished.finished = false
	for name, test := range map[string]struct {
		script bool
		end    ending
		code   int
		text   string
	}{
		"a good end":                    {end: ending{records: []record{sample()}}},
		"a different result":            {end: ending{records: []record{different}}, code: 4, text: "ResNet"},
		"bad input in words":            {end: ending{died(2, 0), []record{failed(ipc.CodeBadInput)}}, code: 2, text: "so it was"},
		"bad input before it is killed": {end: ending{died(-1, 9), []record{failed(ipc.CodeBadInput)}}, code: 2, text: "so it was"},
		"a refused manifest":            {end: ending{died(2, 0), []record{refused}}, code: 2, text: "too small"},
		"a script with no plan":         {script: true, end: ending{died(1, 0), []record{refused}}, code: 2, text: "too small"},
		"a broken protocol":             {end: ending{died(1, 0), []record{failed(ipc.CodeProtocol)}}, code: 1, text: "(protocol)"},
		"a crash":                       {end: ending{died(1, 0, "boom"), nil}, code: 1, text: "boom"},
		"a signal":                      {end: ending{died(-1, 11), []record{lost}}, code: 3, text: "signal 11"},
		"no session":                    {end: ending{}, code: 1, text: "without opening a session"},
		"no outcome":                    {end: ending{records: []record{unfinished}}, code: 1, text: "outcome"},
		"lost although it ended well":   {end: ending{records: []record{lost}}, code: 1, text: "without bye"},
		"a script that ends well":       {script: true, end: ending{records: []record{unfinished}}},
		"a script that heals a failure": {script: true, end: ending{records: []record{failed(ipc.CodeBadInput), sample()}}},
		"a script with bad input":       {script: true, end: ending{died(1, 0), []record{failed(ipc.CodeBadInput)}}, code: 2},
		"a script that fails":           {script: true, end: ending{died(2, 0, "usage"), []record{failed(ipc.CodeInternal)}}, code: 1, text: "exit code 2"},
		"a script that is killed":       {script: true, end: ending{died(-1, 9), nil}, code: 3},
	} {
		t.Run(name, func(t *testing.T) {
			request := model()
			request.target.script = test.script
			err := test.end.judge(request.target)
			switch {
			case err == nil && test.code == 0:
			case err == nil || err.code != test.code || !strings.Contains(err.Error(), test.text):
				t.Errorf("%+v, want code %d and %q", err, test.code, test.text)
			}
		})
	}
}

func TestTheAccountOfASessionIsPreferred(t *testing.T) {
	told := sample()
	told.ended.Err = &controller.ExitError{PID: 4242, Code: -1, Signal: 9, Opened: true, Forwards: 3}
	end := ending{&controller.ExitError{PID: 4242, Code: -1, Signal: 9}, []record{told}}
	if err := end.judge(model().target); !strings.Contains(err.Error(), "after 3 forwards") {
		t.Error(err)
	}
}

func TestReadings(t *testing.T) {
	reading := probe.Reading{
		OS: "linux", Arch: "amd64",
		Cards: []probe.Card{{
			Index: 0, UUID: "GPU-1", Name: "NVIDIA X", DriverVersion: "550.1", TotalBytes: 24 << 30, FreeBytes: 20 << 30, UsedBytes: 4 << 30,
			Link:      probe.Link{Generation: 1, Width: 16, MaxGeneration: 4, MaxWidth: 16, BytesPerSecond: 4e9, MaxBytesPerSecond: 31.5e9},
			Processes: []probe.Process{{PID: 7, Bytes: 4 << 30, Name: "python", Type: probe.Compute}},
		}},
		Host: probe.Host{
			TotalBytes: 64 << 30, AvailableBytes: 40 << 30, FreeBytes: 8 << 30,
			Cgroup:  probe.Cgroup{Version: 2, Path: "/a", Tightest: "/a", Headroom: probe.Limit{Limited: true, Bytes: 8 << 30}},
			Memlock: probe.Limit{Limited: true, Bytes: 8 << 20},
		},
		Notes: probe.Notes{"all is well"},
	}
	bare := probe.Reading{OS: "linux", Arch: "amd64", Cards: []probe.Card{}, Notes: probe.Notes{"No card: the driver is not here."},
		Host: probe.Host{TotalBytes: 64 << 30, FreeBytes: 40 << 30}}
	for name, r := range map[string]probe.Reading{"card": reading, "no_card": bare} {
		for kind, asJSON := range map[string]bool{"txt": false, "json": true} {
			t.Run(name+" as "+kind, func(t *testing.T) {
				var out bytes.Buffer
				if err := printReading(&out, r, asJSON); err != nil {
					t.Fatal(err)
				}
				golden(t, fmt.Sprintf("probe_%s.%s.golden", name, kind), out.Bytes())
			})
		}
	}
}
