//go:build linux && cgo

package probe

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/google/go-cmp/cmp"
)

// symbols are the functions of a mocked library.
type symbols []string

func (s symbols) Lookup(name string) error {
	if slices.Contains(s, name) {
		return nil
	}
	return errors.New("no function " + name)
}

var dgxSymbols = symbols{
	"nvmlSystemGetDriverVersion", "nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo",
	"nvmlDeviceGetMigMode", "nvmlDeviceGetComputeRunningProcesses_v3",
}

// dgx is eight mocked cards, the first of which has known memory.
func dgx() (*server.Server, *server.Device) {
	s := dgxa100.New()
	for _, d := range s.Devices {
		d.(*server.Device).GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.SUCCESS }
	}
	d := s.Devices[0].(*server.Device)
	d.MemoryInfo = nvml.Memory{Total: uint64(40 * gib), Free: uint64(30 * gib), Used: uint64(10 * gib)}
	return s, d
}

func read(ctx context.Context, s *server.Server, name string, has symbols) ([]Card, Notes, error) {
	d := door{turn: newTurn(), lib: &library{name: name, api: s, symbols: has}}
	return nvmlReader{&d, name}.ReadCards(ctx)
}

func TestEightCardsAreReadInOrder(t *testing.T) {
	s, _ := dgx()
	cards, _, err := read(t.Context(), s, "", dgxSymbols)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cards {
		if c.Index != i || c.Name != "NVIDIA A100-SXM4-40GB" && c.Name != "Mock NVIDIA A100-SXM4-40GB" || c.DriverVersion != "550.54.15" {
			t.Errorf("card %d reads %+v", i, c)
		}
	}
	if len(cards) != 8 || cards[0].FreeBytes != 30*gib {
		t.Errorf("%d cards, the first with %v free; want 8 and 30 GiB", len(cards), cards[0].FreeBytes)
	}
}

func TestWhatOneCardTells(t *testing.T) {
	for _, c := range []struct {
		name  string
		alter func(*server.Device)
		has   symbols
		check func(Card, Notes) bool
	}{
		{"memory version 2 tells what is reserved",
			func(d *server.Device) {
				d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
					return nvml.Memory_v2{Total: 100, Reserved: 10, Free: 60, Used: 30}, nvml.SUCCESS
				}
			},
			symbols{"nvmlDeviceGetMemoryInfo_v2"},
			func(c Card, _ Notes) bool { return c.ReservedBytes == 10 && c.UsedBytes == 30 && c.FreeBytes == 60 }},
		{"a driver that has version 2 but not this layout is asked by version 1",
			func(d *server.Device) {
				d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
					return nvml.Memory_v2{Total: 1}, nvml.ERROR_ARGUMENT_VERSION_MISMATCH
				}
			},
			symbols{"nvmlDeviceGetMemoryInfo_v2"},
			func(c Card, _ Notes) bool { return c.TotalBytes == 40*gib && c.ReservedBytes == 0 }},
		{"a card that shares its memory with the host tells none",
			func(d *server.Device) {
				d.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
					return nvml.Memory{Total: 7}, nvml.ERROR_NOT_SUPPORTED
				}
			}, nil,
			func(c Card, n Notes) bool { return !c.MemoryKnown() && said(n, "the memory of card 0") }},
		{"sizes above the largest signed number become that",
			func(d *server.Device) { d.MemoryInfo.Total = math.MaxUint64 }, nil,
			func(c Card, _ Notes) bool { return c.TotalBytes == math.MaxInt64 }},
		{"a card split by MIG is noted",
			func(d *server.Device) { d.MigMode = nvml.DEVICE_MIG_ENABLE }, nil,
			func(c Card, n Notes) bool { return c.MIG && said(n, "Card 0 is split by MIG") }},
		{"a process in two instances of one card holds the sum",
			func(d *server.Device) {
				d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
					return []nvml.ProcessInfo{{Pid: 9, UsedGpuMemory: 3}, {Pid: 9, UsedGpuMemory: 4}, {Pid: 8, UsedGpuMemory: math.MaxUint64}}, nvml.SUCCESS
				}
			}, nil,
			func(c Card, _ Notes) bool { return c.HeldBy(9) == 7 && c.HeldBy(8) == 0 && c.HeldBy(7) == 0 }},
		{"a link of a width that PCIe does not know has no rate",
			func(d *server.Device) {
				d.GetCurrPcieLinkGenerationFunc = func() (int, nvml.Return) { return 4, nvml.SUCCESS }
				d.GetCurrPcieLinkWidthFunc = func() (int, nvml.Return) { return math.MaxUint32, nvml.SUCCESS }
			},
			symbols{"nvmlDeviceGetCurrPcieLinkGeneration", "nvmlDeviceGetCurrPcieLinkWidth"},
			func(c Card, n Notes) bool { return c.Link.BytesPerSecond == 0 && said(n, "the PCIe link of card 0") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, d := dgx()
			s.Devices = s.Devices[:1]
			c.alter(d)
			cards, notes, err := read(t.Context(), s, "", append(slices.Clone(dgxSymbols), c.has...))
			if err != nil {
				t.Fatal(err)
			}
			if !c.check(cards[0], notes) {
				t.Errorf("got %+v with notes %q", cards[0], notes)
			}
		})
	}
}

func said(notes Notes, what string) bool {
	return slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, what) })
}

func TestAFaultInOneCardIsAnErrorThatNamesBoth(t *testing.T) {
	s, d := dgx()
	d.GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
	_, _, err := read(t.Context(), s, "", dgxSymbols)
	var f *Fault
	if !errors.As(err, &f) || f.Call != "nvmlDeviceGetUUID" || f.Code != 15 || !strings.HasPrefix(err.Error(), "card 0: ") {
		t.Errorf("got %v, want a Fault of card 0", err)
	}
	if n := len(s.ShutdownCalls()); n != 1 {
		t.Errorf("%d shutdowns, want 1", n)
	}
}

func TestTheDriversOwnLibraryWithoutItsDriverSeesNoCard(t *testing.T) {
	s, _ := dgx()
	s.InitFunc = func() nvml.Return { return nvml.ERROR_DRIVER_NOT_LOADED }
	cards, notes, err := read(t.Context(), s, "", dgxSymbols)
	if err != nil || len(cards) != 0 || !said(notes, "no NVIDIA card") {
		t.Errorf("cards %v, notes %q, error %v; want a note alone", cards, notes, err)
	}
	if n := len(s.ShutdownCalls()) + len(s.DeviceGetCountCalls()); n != 0 {
		t.Errorf("%d calls after an Init that was not good", n)
	}
}

func TestAFailedShutdownIsAnError(t *testing.T) {
	s, _ := dgx()
	s.ShutdownFunc = func() nvml.Return { return nvml.ERROR_UNKNOWN }
	_, _, err := read(t.Context(), s, "", dgxSymbols)
	var f *Fault
	if !errors.As(err, &f) || f.Call != "nvmlShutdown" {
		t.Errorf("got %v, want a Fault of nvmlShutdown", err)
	}
}

func TestSuccessIsNoError(t *testing.T) {
	if err := fault("nvmlAnything", nvml.SUCCESS); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestOnlyPrintableCharactersLeaveNVML(t *testing.T) {
	for in, want := range map[string]string{
		"NVIDIA GeForce RTX 4090": "NVIDIA GeForce RTX 4090",
		"\x1b[31mred\x1b[0m\n":    "[31mred[0m",
		"half a rune \xe2\x82":    "half a rune ",
		"grüße":                   "grüße",
	} {
		if diff := cmp.Diff(want, printable(in)); diff != "" {
			t.Errorf("%q: %s", in, diff)
		}
	}
}
