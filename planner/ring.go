package planner

// offsetAlignment is that of every page in the arena.
const offsetAlignment Bytes = 512

func align(b Bytes) Bytes { return (b + offsetAlignment - 1) / offsetAlignment * offsetAlignment }

// A cluster is a run of visits, from inclusive to exclusive, that are on the device at the same time.
type cluster struct {
	from, to int
	bytes    Bytes
}

// clusters cuts visits, which are in order, where one has ended before the next begins.
func clusters(pages []Page, streamed []visit) []cluster {
	var out []cluster
	until := -1
	for i, v := range streamed {
		if v.First > until {
			out = append(out, cluster{from: i})
		}
		c := &out[len(out)-1]
		c.to, c.bytes = i+1, align(c.bytes)+pages[v.of].Bytes
		until = max(until, v.Last)
	}
	return out
}

// layRing gives every visit of a streamed page its place: one behind the other, back to the start where the end has no
// room for all that is needed at the same time. It returns the copies of one lap and the bytes they span, which is at most
// arena where arena holds the largest cluster.
func layRing(pages []Page, streamed []visit, arena Bytes) (copies []Copy, span Bytes) {
	var end Bytes
	for _, c := range clusters(pages, streamed) {
		if end+c.bytes > arena {
			end = 0
		}
		for _, v := range streamed[c.from:c.to] {
			copies = append(copies, Copy{Page: v.of, Offset: end, First: v.First, Last: v.Last})
			span = max(span, end+pages[v.of].Bytes)
			end = align(end + pages[v.of].Bytes)
		}
	}
	setAfter(pages, copies)
	return copies, span
}

// setAfter finds for every copy the latest one before it whose bytes it overwrites; one lap before it is the copy itself.
//
// Walking back from copy k, the bytes of a lap lie in falling order down to the wrap and then again from the top, so the
// search is short unless the whole ring fits without a wrap.
func setAfter(pages []Page, copies []Copy) {
	turns := wraps(copies)
	for k := range copies {
		copies[k].After = len(copies)
		if turns {
			copies[k].After = latestOverlap(pages, copies, k)
		}
	}
}

// wraps tells whether the ring goes back to its start within a lap.
func wraps(copies []Copy) bool {
	for i := 1; i < len(copies); i++ {
		if copies[i].Offset <= copies[i-1].Offset {
			return true
		}
	}
	return false
}

func latestOverlap(pages []Page, copies []Copy, k int) int {
	for distance := 1; distance < len(copies); distance++ {
		other := copies[(k-distance+len(copies))%len(copies)]
		if overlap(pages, copies[k], other) {
			return distance
		}
	}
	return len(copies)
}

func overlap(pages []Page, a, b Copy) bool {
	return a.Offset < b.Offset+pages[b.Page].Bytes && b.Offset < a.Offset+pages[a.Page].Bytes
}
