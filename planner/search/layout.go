package search

import (
	"cmp"
	"math"
	"slices"

	"github.com/optimem/optimem/planner"
)

// A layout gives every copy of the ring an offset in the arena.
//
// In the ideal the arena is a queue of bytes, and a copy begins as soon as the queue has room. At a fixed offset a copy can
// begin then only if its bytes hold none of the copies that are still in the arena. These are known in advance: the latest
// depth(k)-1 copies before copy k. So offsets are found as they are for tensors in a memory plan. Copies are placed one after
// the other, in order of time or the largest first. Each goes where it meets none of the known ones. In a long list most copies
// find such an offset at once. A ring of two laps helps where the arena does not hold a whole number of copies.

const (
	layoutTries = 96
	tryEffort   = 300_000 // of one try
	rateEffort  = 100     // per copy, to order and to rate them, in neighbours looked at
	deepest     = 32      // copies that a layout keeps apart: more are hardly ever in flight
)

// A layout is a ring of copies in the making.
type layout struct {
	laps    int             // of the ring
	size    []planner.Bytes // per copy, through all laps
	depth   []int           // per copy, how many of the latest copies, with itself, are in the arena at once
	arena   planner.Bytes
	offset  []planner.Bytes
	placed  []bool
	trouble []float64 // grows where a copy finds no good place
	reach   int       // the greatest depth
	effort  int
	around  []neighbour     // used again for every copy
	offers  []planner.Bytes // used again for every copy
}

// newLayout prepares a ring of laps laps of copies with these sizes. Depths are those of a queue of queue bytes, which is at
// most the arena.
func newLayout(sizes []planner.Bytes, laps int, queue, arena planner.Bytes) *layout {
	l := &layout{laps: laps, size: slices.Repeat(sizes, laps), arena: arena}
	l.depth = queueDepths(l.size, min(len(sizes), affordable(len(l.size))), queue)
	l.reach = slices.Max(l.depth)
	l.trouble = slices.Repeat([]float64{1}, len(l.size))
	l.offset, l.placed = make([]planner.Bytes, len(l.size)), make([]bool, len(l.size))
	return l
}

// affordable is how many copies a layout of n copies can keep apart. A try looks at 8 n depth^2 neighbours.
func affordable(n int) int {
	return min(max(3, int(math.Sqrt(float64(tryEffort/8/n)))), deepest)
}

// queueDepths counts for every copy of a ring how many of the latest copies a queue of so many bytes holds, that copy included.
// It is at most the number of copies of a lap.
func queueDepths(size []planner.Bytes, lap int, queue planner.Bytes) []int {
	n := len(size)
	depths := make([]int, n)
	flying, oldest := planner.Bytes(0), 0
	for at := range 2 * n { // the first round only fills the queue
		for flying += size[at%n]; (flying > queue || at-oldest >= lap) && oldest < at; oldest++ {
			flying -= size[oldest%n]
		}
		depths[at%n] = at - oldest + 1
	}
	return depths
}

// find tries a plain ring first, and then orders of placing. It stops at a layout that is rated no higher than goal, and
// returns the layout with the lowest rating.
func (l *layout) find(goal planner.Nanoseconds, effort *int, rate func(offset []planner.Bytes) planner.Nanoseconds) (best []planner.Bytes, lowest planner.Nanoseconds) {
	order := make([]int, len(l.size))
	lowest = never + 1
	for try := 0; try <= layoutTries && lowest > goal && (try == 0 || *effort > 0); try++ {
		l.effort = rateEffort * len(l.size)
		l.attempt(try, order)
		if rated := rate(l.offset); rated < lowest {
			best, lowest = slices.Clone(l.offset), rated
		}
		*effort -= l.effort
	}
	return best, lowest
}

// attempt lays out all copies: plainly in try 0, in order of time in try 1, and in shuffled orders later. It overwrites order.
func (l *layout) attempt(try int, order []int) {
	if try == 0 {
		copy(l.offset, wrapped(l.size, l.arena))
		return
	}
	for k := range order {
		order[k] = k
	}
	if try > 1 {
		l.shuffle(order, try-2)
	}
	l.place(order)
}

// wrapped places one copy behind the other. A copy that does not fit before the end of the arena goes to its start.
func wrapped(sizes []planner.Bytes, arena planner.Bytes) []planner.Bytes {
	offsets := make([]planner.Bytes, len(sizes))
	var end planner.Bytes
	for k, size := range sizes {
		if end+size > arena {
			end = 0
		}
		offsets[k] = end
		end += size
	}
	return offsets
}

// shuffle orders copies for a try: by size, and earlier the more often a copy found no good offset in other tries. Every other
// try also mixes them, by a number that depends on the try and the copy alone.
func (l *layout) shuffle(order []int, try int) {
	key := make([]float64, len(order))
	for k := range order {
		key[k] = -float64(l.size[k]) * l.trouble[k]
		if try%2 == 1 {
			key[k] *= 1 - scatter(try, k)*float64(try)/layoutTries
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(key[a], key[b]), a-b) })
}

// scatter is a number from 0 to 1 that depends on a and b alone. It is the finaliser of splitmix64.
func scatter(a, b int) float64 {
	x := uint64(a)*goldenStep + uint64(b)
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return float64((x^x>>31)>>11) / (1 << 53)
}

// place gives the copies offsets, one after the other in an order. Each takes the offset where it meets the fewest neighbours.
func (l *layout) place(order []int) {
	clear(l.placed)
	for _, k := range order {
		near := l.near(k)
		best, fewest := planner.Bytes(0), math.MaxInt
		for _, offset := range l.candidates(k, near) {
			if met := l.met(k, offset, near); met < fewest || met == fewest && offset < best {
				best, fewest = offset, met
			}
		}
		l.offset[k], l.placed[k] = best, true
		if fewest > 0 {
			l.trouble[k] *= 1.25
		}
	}
}

// A neighbour is a placed copy that is in the arena together with another one. Its weight grows with the time that they share.
type neighbour struct{ copy, weight int }

// near lists the neighbours of copy k.
func (l *layout) near(k int) []neighbour {
	n := len(l.size)
	l.around = l.around[:0]
	for distance := 1; distance < min(l.reach, n); distance++ {
		before, behind := (k-distance+n)%n, (k+distance)%n
		if weight := l.depth[k] - distance; weight > 0 && l.placed[before] {
			l.around = append(l.around, neighbour{before, weight})
		}
		if weight := l.depth[behind] - distance; weight > 0 && l.placed[behind] {
			l.around = append(l.around, neighbour{behind, weight})
		}
	}
	return l.around
}

// candidates are the offsets worth a try: both ends of the arena and of every neighbour.
func (l *layout) candidates(k int, near []neighbour) []planner.Bytes {
	out := append(l.offers[:0], 0)
	if top := l.arena - l.size[k]; top > 0 {
		out = append(out, top)
	}
	for _, other := range near {
		if behind := l.offset[other.copy] + l.size[other.copy]; behind+l.size[k] <= l.arena {
			out = append(out, behind)
		}
		if before := l.offset[other.copy] - l.size[k]; before >= 0 {
			out = append(out, before)
		}
	}
	l.offers = out
	return out
}

// met is the weight of the neighbours that share bytes with copy k at an offset.
func (l *layout) met(k int, offset planner.Bytes, near []neighbour) int {
	sum, end := 0, offset+l.size[k]
	for _, other := range near {
		if from := l.offset[other.copy]; offset < from+l.size[other.copy] && from < end {
			sum += other.weight
		}
	}
	l.effort += len(near)
	return sum
}
