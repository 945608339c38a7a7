package search

import (
	"math"
	"math/bits"

	"github.com/optimem/optimem/planner"
)

const (
	inFlight     = 3        // copies in flight in the formula for the page size
	smallestPage = 64 << 10 // bytes below which a page is not worth a copy of its own
	budgetShare  = 16       // no page is merged above this part of the budget
)

// pageSizes are the sizes worth a try: the best size by formula first, then larger ones up to the best for any budget, and the
// next smaller one. Sizes are powers of two, so that similar budgets choose from the same sizes.
func pageSizes(weights, budget planner.Bytes, link planner.Link) []planner.Bytes {
	most := max(1, budget/budgetShare)
	best, top := pageSize(max(0, weights-budget), link), pageSize(weights, link)
	out := []planner.Bytes{min(best, powerOfTwo(most))}
	for size := 2 * best; size <= min(2*top, most); size *= 2 {
		out = append(out, size)
	}
	return append(out, out[0]/2)
}

// pageSize is the size that costs least over a forward, to the nearest power of two. To stream X bytes in pages of s with K
// copies in flight takes X L / s for latencies, and K s / B to fill and drain the pipeline. The sum is least at
// s = sqrt(X L B / K).
func pageSize(streamed planner.Bytes, link planner.Link) planner.Bytes {
	best := math.Sqrt(float64(streamed) * float64(perLatency(link)) / inFlight)
	return powerOfTwo(max(planner.Bytes(best*math.Sqrt2), smallestPage))
}

// perLatency is how many bytes a link moves in the time of its latency.
func perLatency(l planner.Link) planner.Bytes {
	l = l.OrUsual()
	return planner.Bytes(min(planner.Largest, float64(l.Latency)*float64(l.Rate)/1e9))
}

// powerOfTwo is the largest power of two that is at most size.
func powerOfTwo(size planner.Bytes) planner.Bytes { return 1 << (bits.Len64(uint64(size)) - 1) }
