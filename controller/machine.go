package controller

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
)

// probeGrace bounds one reading of the machine.
const probeGrace = 2 * time.Second

// freeByWorker is the device memory that the worker says it could have, 0 where it does not know.
func (s *Session) freeByWorker(measured ipc.Measured) planner.Bytes {
	if measured.FreeBytes > 0 {
		return planner.Bytes(measured.FreeBytes)
	}
	return planner.Bytes(s.hello.Device.FreeBytes)
}

// freeByCard is what NVML says that the worker could have of its card: what is free and what it holds; 0 where NVML does
// not know the card.
func (s *Session) freeByCard(ctx context.Context) planner.Bytes {
	if s.hello.Device.UUID == "" {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, probeGrace)
	defer cancel()
	reading, err := s.config.Prober.Probe(ctx)
	if err != nil {
		s.log.Warn("card not read", "error", err)
		return 0
	}
	card, ok := reading.CardByUUID(s.hello.Device.UUID)
	if !ok || !card.MemoryKnown() {
		return 0
	}
	return card.FreeBytes + card.HeldBy(s.pid)
}

// linkOf is the link as the worker measured it.
func linkOf(measured ipc.Measured) planner.Link {
	return planner.Link{
		Latency: planner.Nanoseconds(measured.LinkLatencyNS),
		Rate:    planner.Bytes(measured.LinkBytesPerSecond),
	}
}

// crossingOf is what activations take to change sides, as the worker measured it.
func crossingOf(measured ipc.Measured) planner.Link {
	return planner.Link{
		Latency: planner.Nanoseconds(measured.CrossingLatencyNS),
		Rate:    planner.Bytes(measured.CrossingBytesPerSecond),
	}
}

// least is the smallest of the sizes that are known, 0 where none is.
func least(sizes ...planner.Bytes) planner.Bytes {
	var least planner.Bytes
	for _, size := range sizes {
		if size > 0 && (least == 0 || size < least) {
			least = size
		}
	}
	return least
}

// hold marks what a plan keeps resident as held: once it was sent the worker has that, or is bringing it.
func hold(m planner.Manifest, inForce planner.Plan) {
	for _, page := range inForce.Pages {
		for _, unit := range page.Units {
			m.Units[unit].Held = page.Placement == planner.Resident
		}
	}
}

// worthwhile tells whether a plan made from newer times is worth sending.
func (s *Session) worthwhile(newer planner.Plan) bool {
	return !same(s.plan.Plan, newer) && (budgetChanged(s.plan.Plan, newer) || s.mistaken(0))
}

// patience is how many forwards under a plan it takes until reports alone tell that it is mistaken: as many as a worker times
// step by step. Times that were measured anew are medians of those, and tell at once.
const patience = 3

// mistaken tells whether the prediction of the plan in force is off by more than a tenth of the period that the last report saw
// under it, the median of the latest forwards, once so many forwards have been done; not any more once it has been settled.
func (s *Session) mistaken(forwards uint64) bool {
	if s.settled || s.report.PlanVersion != uint64(s.plan.Version) || s.report.PeriodNS == 0 || s.report.Forwards < s.began+forwards {
		return false
	}
	seen := int64(s.report.PeriodNS)
	return abs(int64(s.plan.Period)-seen) > seen/10
}

// A seen is a plan under which forwards took some time, in ns; 0 where none has been seen.
type seen struct {
	draft
	period uint64
}

// or is the faster of two.
func (s seen) or(other seen) seen {
	if s.period == 0 || other.period > 0 && other.period < s.period {
		return other
	}
	return s
}

// beats tells whether the plan was faster than a period by more than what periods differ by from one time to the next.
func (s seen) beats(period uint64) bool { return s.period > 0 && s.period+s.period/50 < period }

// trial is how many forwards under a plan it takes until it is compared with others: enough for the step times
// under it to arrive, and for a plan that is better by those.
const trial = 2*patience + 1

// tried tells whether the plan in force has had its trial.
func (s *Session) tried() bool {
	return s.report.PlanVersion == uint64(s.plan.Version) && s.report.PeriodNS > 0 && s.report.Forwards >= s.began+trial
}

// usesCPU tells whether the CPU computes in one of the modes in which it need not.
func usesCPU(p planner.Plan) bool {
	return p.Mode == planner.ModeAuto && slices.ContainsFunc(p.Pages, func(page planner.Page) bool { return page.Placement == planner.OnCPU })
}

// withoutCPU is what was measured without the CPU's times, and with the device's from before it took part: later ones hold
// what the device has waited for the host since.
func withoutCPU(measured, alone ipc.Measured) ipc.Measured {
	measured.StepCPUNS = nil
	if len(alone.StepComputeNS) == len(measured.StepComputeNS) {
		measured.StepComputeNS = alone.StepComputeNS
	}
	return measured
}

// same tells whether two plans say the same to a worker but for the version.
func same(a, b planner.Plan) bool {
	a.Version, a.Fill, a.First = b.Version, b.Fill, b.First // which the message leaves out
	return reflect.DeepEqual(a, b)
}

// budgetChanged leaves out the small changes that allocators make from one forward to the next, unless the plan in force
// no longer fits.
func budgetChanged(inForce, newer planner.Plan) bool {
	if newer.Budget < inForce.Resident+inForce.Arena {
		return true
	}
	return abs(int64(newer.Budget-inForce.Budget)) > int64(inForce.Budget)/64
}

func abs(n int64) int64 { return max(n, -n) }
