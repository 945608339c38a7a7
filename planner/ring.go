package planner

import "slices"

// Waits finds for every copy of a ring how many places earlier the latest copy lies whose bytes it takes; a lap is the most
// that a copy is issued ahead.
func Waits(size, offset []Bytes, lap int) []int {
	n := len(size)
	out := make([]int, n)
	var o owners
	for at := range 2 * n { // the first round only finds out who owned what before
		k := at % n
		latest := o.take(offset[k], offset[k]+size[k], at)
		out[k] = min(lap, at-latest)
	}
	return out
}

// owners knows for stretches of the arena, in order and without gaps between them, the latest copy in each.
type owners struct {
	from []Bytes // where a stretch begins; it ends where the next one does
	copy []int
}

const nobody = -1 << 40

// take gives a stretch to a copy, and returns the latest copy that owned any of it.
func (o *owners) take(from, to Bytes, copy int) (latest int) {
	latest = nobody
	if from == to {
		return latest
	}
	first, found := slices.BinarySearch(o.from, from)
	if !found {
		first-- // the stretch that from lies in
	}
	behind := nobody // owns what comes at to
	last := max(first, 0)
	for ; last < len(o.from) && o.from[last] < to; last++ {
		behind = o.copy[last]
		latest = max(latest, behind)
	}
	var starts [3]Bytes
	var users [3]int
	n := 0
	put := func(start Bytes, user int) { starts[n], users[n], n = start, user, n+1 }
	if !found && first >= 0 {
		put(o.from[first], o.copy[first])
	}
	put(from, copy)
	if last == len(o.from) || o.from[last] > to {
		put(to, behind)
	}
	o.from = slices.Replace(o.from, max(first, 0), last, starts[:n]...)
	o.copy = slices.Replace(o.copy, max(first, 0), last, users[:n]...)
	return latest
}
