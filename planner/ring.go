package planner

import "slices"

// Waits is how long the copies of a ring wait: for every copy how many places earlier the latest copy lies that shares bytes
// with it. size and offset are bytes, through all laps of the ring. The result is at most lap, the copies of one lap, since a copy
// is issued at most one lap ahead.
func Waits(size, offset []Bytes, lap int) []int {
	n := len(size)
	out := make([]int, n)
	var o owners
	for at := range 2 * n { // the first round only finds the owners
		k := at % n
		latest := o.take(offset[k], offset[k]+size[k], at)
		out[k] = min(lap, at-latest)
	}
	return out
}

// The owners are the latest copy in every stretch of the arena. Stretches are in order and leave no gaps.
type owners struct {
	from []Bytes // where a stretch begins; it ends where the next stretch begins
	copy []int
}

// nobody is the owner of bytes that no copy has taken.
const nobody = -1 << 40

// take gives a stretch to a copy, and returns the latest copy that owned any of it.
func (o *owners) take(from, to Bytes, copy int) (latest int) {
	latest = nobody
	if from == to {
		return latest
	}
	first, found := slices.BinarySearch(o.from, from)
	if !found {
		first-- // from lies within this stretch
	}
	behind := nobody // the owner of the bytes at to
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
