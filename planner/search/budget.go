package search

import (
	"fmt"

	"github.com/optimem/optimem/planner"
)

// reserve is what is left to activations and others: the most that any step was seen to use and a tenth, since the
// allocator rounds and later inputs differ. Before the recorded forward nothing is known: a quarter of the memory is kept
// free, and nothing where the user spoke of weights alone.
func reserve(m planner.Manifest, total planner.Bytes, o planner.Options) planner.Bytes {
	if !m.Recorded && o.VRAM.MilliPercent > 0 {
		return 0
	}
	if !m.Recorded {
		return total / 4
	}
	var most planner.Bytes
	for _, step := range m.Steps {
		most = max(most, step.Activations)
	}
	return most + most/10
}

// budget returns the device bytes that weights may take, and the reserve beside them.
//
// A share in percent is of the weights and for weights alone. A share in bytes is all that the model may take on the card,
// activations included. Neither goes above what is free, less the reserve; nothing said means all of that.
func budget(m planner.Manifest, machine planner.Machine, o planner.Options) (forWeights, reserved planner.Bytes) {
	if o.Budget > 0 {
		return o.Budget, reserve(m, machine.Free, o)
	}
	total := machine.Free
	if o.VRAM.Bytes > 0 && (total == 0 || o.VRAM.Bytes < total) {
		total = o.VRAM.Bytes
	}
	reserved = reserve(m, total, o)
	if o.VRAM.MilliPercent == 0 {
		return max(0, total-reserved), reserved
	}
	share := scaled(m.Weights(), o.VRAM.MilliPercent, 100_000)
	if total > 0 {
		share = min(share, max(0, total-reserved))
	}
	return share, reserved
}

// scaled is size times numerator / denominator, without overflow for sizes up to the largest.
func scaled(size planner.Bytes, numerator, denominator int64) planner.Bytes {
	n := planner.Bytes(numerator)
	d := planner.Bytes(denominator)
	return size/d*n + size%d*n/d
}

// A TooSmallError says that a budget cannot hold what must be on the device at once.
type TooSmallError struct {
	Budget  planner.Bytes
	Need    planner.Bytes
	Reserve planner.Bytes // kept for all else, beside the budget
	What    string        // the page, or the units that must stay
}

// Missing is how many bytes there are too few.
func (e *TooSmallError) Missing() planner.Bytes { return e.Need - e.Budget }

func (e *TooSmallError) Error() string {
	text := fmt.Sprintf("a budget of %v for weights is too small: %s takes %v, so %v (%d bytes) are missing",
		e.Budget, e.What, e.Need, e.Missing(), int64(e.Missing()))
	if e.Reserve > 0 {
		text += fmt.Sprintf(", beside the %v kept for activations", e.Reserve)
	}
	return text + "; give more device memory or page smaller modules"
}
