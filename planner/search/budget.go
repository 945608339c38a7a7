package search

import "github.com/optimem/optimem/planner"

// budget returns the device bytes that weights may take, and the reserve beside them.
//
// A share in percent is of the weights and for weights alone, those included that are not paged. A share in bytes is for all
// memory of the model on the card, activations included. Neither exceeds the free memory less the reserve. Without a share
// weights may take all of that. What weights that are not paged take is no part of the budget, which is below zero where they
// do not fit.
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
		return max(-m.Kept, total-reserved), reserved
	}
	share := scaled(m.Weights()+m.Kept, o.VRAM.MilliPercent, 100_000) - m.Kept
	if total > 0 {
		share = min(share, max(-m.Kept, total-reserved))
	}
	return share, reserved
}

// reserve is the device memory in bytes that is left to activations and others. After the recording it is the peak of all
// steps and a tenth more, since the allocator rounds and later inputs differ; weights that are not paged are in it. Before the
// recording no peak is known: the reserve is a quarter of total, or 0 where the user gave a share of the weights, and what
// weights that are not paged take.
func reserve(m planner.Manifest, total planner.Bytes, o planner.Options) planner.Bytes {
	if !m.Recorded && o.VRAM.MilliPercent > 0 {
		return m.Kept
	}
	if !m.Recorded {
		return total/4 + m.Kept
	}
	var most planner.Bytes
	for _, step := range m.Steps {
		most = max(most, step.Activations)
	}
	return most + most/10
}

// scaled is size times numerator / denominator. It does not overflow for sizes up to planner.Largest.
func scaled(size planner.Bytes, numerator, denominator int64) planner.Bytes {
	n := planner.Bytes(numerator)
	d := planner.Bytes(denominator)
	return size/d*n + size%d*n/d
}
