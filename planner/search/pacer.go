package search

import "github.com/optimem/optimem/planner"

// A pacer evaluates placements quickly. It takes the arena for a queue of bytes; a layout then has to reach its result:
//
//	copy end(s) = max(copy end(s-1), release(s - d(s))) + latency + bytes/rate
//	begin(s)    = max(end of the computation before, copy end(s))
//	d(s)        = least d such that bytes(s-d) + ... + bytes(s) > arena, at most the copies of one lap
//
// Activations that cross to the device wait for the copies that have room by then, as in planner.Evaluate. Where units are
// held, the period includes one forward's part of the change to the placements. Buffers are used again in every call.
type pacer struct {
	lap    *lap
	laps   int                   // how many are played at most
	begin  []planner.Nanoseconds // of the computation at each stop, in all laps
	queue  []flight              // pages in the arena, in all laps
	ready  []planner.Nanoseconds // end of the copy for each stop that streams, in all laps
	ends   []planner.Nanoseconds // of the laps
	effort int                   // stops that were evaluated so far
}

// A flight is a page in the arena: the stop that it serves, and the number of stops in the laps before.
type flight struct{ stop, before int32 }

// A pacer plays laps until a period shows. A long lap forgets its start sooner.
const (
	fewestLaps = 4
	warmStops  = 320
	mostWarm   = 32
)

// never is the period of placements that cannot work.
const never planner.Nanoseconds = 64 * planner.Largest

// newPacer makes the buffers for a lap.
func newPacer(l *lap) *pacer {
	n := max(1, len(l.stops))
	laps := min(max(fewestLaps, warmStops/n), mostWarm)
	return &pacer{lap: l, laps: laps, begin: make([]planner.Nanoseconds, laps*n), queue: make([]flight, laps*n), ready: make([]planner.Nanoseconds, laps*n)}
}

// period evaluates placements with an arena that is a queue of bytes. It is never where a page does not fit or the queue
// deadlocks.
func (p *pacer) period(places []planner.Placement, arena planner.Bytes) planner.Nanoseconds {
	return p.pace(places, arena, []int{p.copies(places)})
}

// ringPeriod evaluates placements with a ring of copies. Each copy waits for the copy so many places earlier, and for all
// before that.
func (p *pacer) ringPeriod(places []planner.Placement, waits []int) planner.Nanoseconds {
	return p.pace(places, planner.Largest, waits)
}

// pace plays laps until their times repeat.
func (p *pacer) pace(places []planner.Placement, arena planner.Bytes, waits []int) planner.Nanoseconds {
	l, n := p.lap, len(p.lap.stops)
	e := engines{held: -1}
	p.ends = p.ends[:0]
	for lap := 0; lap < p.laps && !steady(p.ends); lap++ {
		e.now += l.lead
		before := planner.Resident
		for i := range l.stops {
			s, at := &l.stops[i], lap*n+i
			where := places[s.page]
			if (where == planner.OnCPU) != (before == planner.OnCPU) {
				if before == planner.OnCPU {
					p.crossBack(&e, at, places, arena, waits, s.cross)
				} else {
					e.now += s.cross
				}
			}
			before = where
			if where == planner.Streamed {
				for e.next <= at {
					if !p.advance(&e, at, places, arena, waits) {
						return never
					}
				}
				e.now = max(e.now, p.ready[at])
			}
			p.begin[at] = e.now
			e.now += s.time(where)
		}
		if before == planner.OnCPU {
			p.crossBack(&e, (lap+1)*n, places, arena, waits, l.back)
		}
		p.ends = append(p.ends, e.now)
	}
	p.effort += len(p.ends) * n
	return max(paceOf(p.ends), l.hostTime(places)) + l.change(places)
}

// crossBack brings activations to the device before stop at. They wait for the copies that run or have room.
func (p *pacer) crossBack(e *engines, at int, places []planner.Placement, arena planner.Bytes, waits []int, crossing planner.Nanoseconds) {
	for e.next < p.laps*len(p.lap.stops) && p.advance(e, at, places, arena, waits) {
	}
	e.now = max(e.now, e.copied) + crossing
	e.copied = e.now
}

// advance copies the page of the next stop, before stop at. It returns false where the page has no room.
func (p *pacer) advance(e *engines, at int, places []planner.Placement, arena planner.Bytes, waits []int) bool {
	n := len(p.lap.stops)
	i := e.next % n
	if i == 0 {
		e.held = -1
	}
	s, f := &p.lap.stops[i], flight{int32(i), int32(e.next - i)}
	if places[s.page] == planner.Streamed {
		if s.page == e.held { // it is still there: one copy serves both uses
			p.queue[e.tail-1] = f
		} else if !p.makeRoom(e, at, s.bytes, arena, waits[e.copies%len(waits)]) {
			return false
		} else {
			p.bring(e, f)
			e.copies++
		}
		p.ready[e.next] = e.copied
	}
	e.next++
	return true
}

// The engines are the state of the link and the device at one stop of one lap.
type engines struct {
	now    planner.Nanoseconds // end of the computation before
	copied planner.Nanoseconds // end of the copy before
	free   planner.Nanoseconds // when the bytes that were taken last came free
	flying planner.Bytes       // in the arena
	head   int                 // of the queue: its oldest page
	tail   int
	held   int32 // page of the latest stop that streamed in this lap
	next   int   // the next stop, counted through all laps, whose page is to be copied
	copies int   // how many were made so far
}

// makeRoom takes the oldest pages out of the arena until it has room for size bytes and holds fewer than most pages. It returns
// false where a page that is still in use would have to go.
func (p *pacer) makeRoom(e *engines, at int, size, arena planner.Bytes, most int) bool {
	for e.flying+size > arena || e.tail-e.head >= most {
		if e.head == e.tail {
			return false
		}
		oldest := p.queue[e.head]
		s := &p.lap.stops[oldest.stop]
		anchor := int(oldest.before + s.anchor)
		if anchor >= at {
			return false
		}
		e.head++
		e.flying -= s.bytes
		e.free = max(e.free, p.begin[anchor]+s.tail)
	}
	return true
}

// bring copies the page of a stop, for which there is room.
func (p *pacer) bring(e *engines, f flight) {
	s := &p.lap.stops[f.stop]
	e.copied = max(e.copied, e.free) + s.transfer
	e.flying += s.bytes
	e.held = s.page
	p.queue[e.tail] = f
	e.tail++
}

// time is the time from this stop to the next, computed where the page is placed.
func (s *stop) time(at planner.Placement) planner.Nanoseconds {
	if at == planner.OnCPU {
		return s.cpuGap
	}
	return s.gap
}

// copies is how many copies the placements need in a lap.
func (p *pacer) copies(places []planner.Placement) int {
	count, held := 0, int32(-1)
	for i := range p.lap.stops {
		if page := p.lap.stops[i].page; places[page] == planner.Streamed && page != held {
			count, held = count+1, page
		}
	}
	return count
}

// hostTime is the time in which RAM gives the bytes that copies and the CPU read in one lap.
func (l *lap) hostTime(places []planner.Placement) planner.Nanoseconds {
	if l.dram == 0 {
		return 0
	}
	var sum planner.Bytes
	for i := range l.stops {
		if places[l.stops[i].page] != planner.Resident {
			sum += l.stops[i].bytes
		}
	}
	return planner.Link{Latency: 0, Rate: l.dram}.Transfer(sum)
}

// paceOf is the period that the ends of laps show. Where laps repeat it is the last lap, else the mean over an even number of
// the later laps, rounded up.
func paceOf(ends []planner.Nanoseconds) planner.Nanoseconds {
	last := len(ends) - 1
	if steady(ends) {
		return ends[last] - ends[last-1]
	}
	count := (last + 1) / 2 &^ 1
	return (ends[last] - ends[last-count] + planner.Nanoseconds(count) - 1) / planner.Nanoseconds(count)
}

// steady tells whether the last three laps took the same time.
func steady(ends []planner.Nanoseconds) bool {
	n := len(ends)
	return n >= 4 && ends[n-1]-ends[n-2] == ends[n-2]-ends[n-3] && ends[n-2]-ends[n-3] == ends[n-3]-ends[n-4]
}

// leastArena is the smallest arena with which placements have the same period as with room. It is found by halving, to a part
// in a hundred, since the period never grows with the arena.
func (p *pacer) leastArena(places []planner.Placement, room planner.Bytes, period planner.Nanoseconds) planner.Bytes {
	low, high := planner.Bytes(-1), room
	for high-low > max(1, room/128) {
		middle := low + (high-low)/2
		if p.period(places, middle) <= period {
			high = middle
		} else {
			low = middle
		}
	}
	return high
}
