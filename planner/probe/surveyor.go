//go:build linux && cgo

package probe

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/optimem/optimem/planner"
)

// A surveyor reads cards from an NVML that was initialised. It asks has before it calls a function that a driver may lack.
type surveyor struct {
	api   nvml.Interface
	has   func(names ...string) bool
	notes Notes
	noted map[string]bool // by what is not known, so that it is said once
}

func (s *surveyor) cards(ctx context.Context) ([]Card, error) {
	driver, err := ask(s, "the driver's version", s.api.SystemGetDriverVersion, "nvmlSystemGetDriverVersion")
	if err != nil {
		return nil, err
	}
	n, r := s.api.DeviceGetCount()
	if err := fault("nvmlDeviceGetCount", r); err != nil {
		return nil, err
	}
	cards := []Card{}
	for i := range n {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		card, ok, err := s.card(i)
		if err != nil {
			return nil, fmt.Errorf("card %d: %w", i, err)
		}
		if ok {
			card.DriverVersion = printable(driver)
			cards = append(cards, card)
		}
	}
	return cards, nil
}

// card reads one card; ok is false where this user may not see it, for NVML counts such cards too.
func (s *surveyor) card(index int) (c Card, ok bool, err error) {
	device, r := s.api.DeviceGetHandleByIndex(index)
	if r == nvml.ERROR_NO_PERMISSION {
		s.note("Card %d is left out: this user or container may not use it.", index)
		return Card{}, false, nil
	}
	if err := fault("nvmlDeviceGetHandleByIndex", r); err != nil {
		return Card{}, false, err
	}
	c.Index = index
	for _, read := range []func(nvml.Device, *Card) error{s.identity, s.memory, s.link, s.mig, s.processes} {
		if err := read(device, &c); err != nil {
			return Card{}, false, err
		}
	}
	return c, true, nil
}

func (s *surveyor) identity(d nvml.Device, c *Card) error {
	uuid, err := ask(s, what(c, "UUID"), d.GetUUID, "nvmlDeviceGetUUID")
	if err != nil {
		return err
	}
	name, err := ask(s, what(c, "name"), d.GetName, "nvmlDeviceGetName")
	c.UUID, c.Name = printable(uuid), printable(name)
	return err
}

// memory prefers version 2, which tells what is reserved apart from what is used.
func (s *surveyor) memory(d nvml.Device, c *Card) error {
	if s.has("nvmlDeviceGetMemoryInfo_v2") {
		m, r := d.GetMemoryInfo_v2()
		if r == nvml.SUCCESS {
			c.TotalBytes, c.FreeBytes, c.UsedBytes, c.ReservedBytes = signed(m.Total), signed(m.Free), signed(m.Used), signed(m.Reserved)
			return nil
		}
		if !lacks(r) {
			return fault("nvmlDeviceGetMemoryInfo_v2", r)
		}
	}
	m, err := ask(s, what(c, "memory"), d.GetMemoryInfo, "nvmlDeviceGetMemoryInfo")
	c.TotalBytes, c.FreeBytes, c.UsedBytes = signed(m.Total), signed(m.Free), signed(m.Used)
	return err
}

func (s *surveyor) link(d nvml.Device, c *Card) error {
	for _, field := range []struct {
		into *int
		ask  func() (int, nvml.Return)
		name string
	}{
		{&c.Link.Generation, d.GetCurrPcieLinkGeneration, "nvmlDeviceGetCurrPcieLinkGeneration"},
		{&c.Link.Width, d.GetCurrPcieLinkWidth, "nvmlDeviceGetCurrPcieLinkWidth"},
		{&c.Link.MaxGeneration, d.GetMaxPcieLinkGeneration, "nvmlDeviceGetMaxPcieLinkGeneration"},
		{&c.Link.MaxWidth, d.GetMaxPcieLinkWidth, "nvmlDeviceGetMaxPcieLinkWidth"},
	} {
		var err error
		if *field.into, err = ask(s, what(c, "PCIe link"), field.ask, field.name); err != nil {
			return err
		}
	}
	c.Link.BytesPerSecond = linkRate(c.Link.Generation, c.Link.Width)
	c.Link.MaxBytesPerSecond = linkRate(c.Link.MaxGeneration, c.Link.MaxWidth)
	return nil
}

// mig reads whether the card is split. Most cards cannot be, so one that does not say is not.
func (s *surveyor) mig(d nvml.Device, c *Card) error {
	mode, err := ask(s, "", func() (int, nvml.Return) {
		now, _, r := d.GetMigMode()
		return now, r
	}, "nvmlDeviceGetMigMode")
	if c.MIG = mode == nvml.DEVICE_MIG_ENABLE; c.MIG {
		s.note("Card %d is split by MIG: the sizes here are those of the whole card, and an instance has less.", c.Index)
	}
	return err
}

// processes reads three lists in which one process may stand several times: within a list once for each MIG instance,
// with what it holds there, and again in the other lists with the same memory.
func (s *surveyor) processes(d nvml.Device, c *Card) error {
	held := map[int]Process{}
	for _, list := range []struct {
		kind ProcessType
		what string
		ask  func() ([]nvml.ProcessInfo, nvml.Return)
		name string
	}{
		{Compute, what(c, "processes"), d.GetComputeRunningProcesses, "nvmlDeviceGetComputeRunningProcesses"},
		{Compute, "", d.GetMPSComputeRunningProcesses, "nvmlDeviceGetMPSComputeRunningProcesses"},
		{Graphics, what(c, "processes"), d.GetGraphicsRunningProcesses, "nvmlDeviceGetGraphicsRunningProcesses"},
	} {
		infos, err := ask(s, list.what, list.ask, list.name, list.name+"_v2", list.name+"_v3")
		if err != nil {
			return err
		}
		for pid, bytes := range sums(infos) {
			held[pid] = held[pid].joined(Process{PID: pid, Bytes: bytes, Type: list.kind})
		}
	}
	for _, p := range held {
		p.Name = s.processName(p.PID)
		c.Processes = append(c.Processes, p)
	}
	slices.SortFunc(c.Processes, func(a, b Process) int { return cmp.Compare(a.PID, b.PID) })
	return nil
}

// notAvailable stands in a process's memory where NVML does not know it (NVML_VALUE_NOT_AVAILABLE).
const notAvailable = ^uint64(0)

// sums adds up a list by PID.
func sums(infos []nvml.ProcessInfo) map[int]planner.Bytes {
	sum := map[int]planner.Bytes{}
	for _, info := range infos {
		pid, bytes := int(info.Pid), planner.Bytes(0)
		if info.UsedGpuMemory != notAvailable {
			bytes = signed(info.UsedGpuMemory)
		}
		sum[pid] = plus(sum[pid], bytes)
	}
	return sum
}

// joined is what two lists say of one process; p may be the zero value.
func (p Process) joined(other Process) Process {
	if p.Type != "" && p.Type != other.Type {
		other.Type = ComputeAndGraphics
	}
	other.Bytes = max(p.Bytes, other.Bytes)
	return other
}

// processName is empty where the process has ended meanwhile, or belongs to someone else.
func (s *surveyor) processName(pid int) string {
	if !s.has("nvmlSystemGetProcessName") {
		return ""
	}
	name, r := s.api.SystemGetProcessName(pid)
	if r != nvml.SUCCESS {
		return ""
	}
	return printable(name)
}

// ask makes a call of NVML that a driver may lack. Its first name is the one in errors; go-nvml calls the newest that is
// there. What a driver lacks is noted by what, unless that is empty, and is then the zero value.
func ask[T any](s *surveyor, what string, call func() (T, nvml.Return), names ...string) (answer T, err error) {
	r := nvml.ERROR_FUNCTION_NOT_FOUND
	if s.has(names...) {
		answer, r = call()
	}
	if err = fault(names[0], r); err == nil {
		return answer, nil
	}
	var none T
	if !lacks(r) {
		return none, err
	}
	s.unknown(what, err)
	return none, nil
}

func (s *surveyor) unknown(what string, cause error) {
	if what == "" || s.noted[what] {
		return
	}
	if s.noted == nil {
		s.noted = map[string]bool{}
	}
	s.noted[what] = true
	s.note("Not known in full: %s (%v).", what, cause)
}

func (s *surveyor) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func what(c *Card, part string) string { return fmt.Sprintf("the %s of card %d", part, c.Index) }

// printable drops what would move a terminal's cursor or is no UTF-8: a process chooses its own name.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}
