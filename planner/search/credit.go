package search

import "github.com/optimem/optimem/planner"

// one is the whole of a share.
const one = 1 << 12

// A credit says how much of the idle time that a period allows may be used up by which stop.
type credit struct {
	shares []int64 // per stop, how much of the lap lies before its end, of one
	ahead  int64   // given in advance, of one
	may    []bool  // per page, whether it may stream; nil: all may
}

// allows tells whether a lap that may idle for idle in all may have waited so long by the end of stop i.
func (c credit) allows(i int, waited, idle planner.Nanoseconds) bool {
	part := planner.Nanoseconds(min(one, c.shares[i]+c.ahead))
	return waited <= idle/one*part+idle%one*part/one
}

// shares measure how far into the lap each stop is: by bytes, by number, and by compute time.
func (l *lap) shares() [3][]int64 {
	n := len(l.stops)
	bytes, count, time := make([]int64, n), make([]int64, n), make([]int64, n)
	for i, s := range l.stops {
		bytes[i], count[i], time[i] = int64(s.bytes), 1, int64(s.gap)
	}
	return [3][]int64{runningShares(bytes), runningShares(count), runningShares(time)}
}

// runningShares are the sums up to each part, of one.
func runningShares(parts []int64) []int64 {
	var whole, sum int64
	for _, part := range parts {
		whole += part
	}
	shares := make([]int64, len(parts))
	for i, part := range parts {
		sum += part
		shares[i] = sum / (whole/one + 1)
	}
	return shares
}

// spend decides in one run over two laps which pages stream, so that the lap idles for about idle: a page streams where the
// time that the device has waited so far, with it, is what the credit allows. All others become resident, except those that
// the CPU computes. It fills places and returns the bytes of the residents.
func (p *pacer) spend(places []planner.Placement, arena planner.Bytes, idle planner.Nanoseconds, c credit) planner.Bytes {
	l, n := p.lap, len(p.lap.stops)
	var e engines
	var resident planner.Bytes
	p.effort += 2 * n
	for lap := range 2 {
		e.now += l.lead
		e.held, resident = -1, 0
		waited := planner.Nanoseconds(0)
		for i := range l.stops {
			s, at := &l.stops[i], lap*n+i
			begins := int(l.first[s.page]) == i
			switch {
			case places[s.page] == planner.OnCPU || !begins && places[s.page] == planner.Resident:
			case s.page == e.held:
				p.queue[e.tail-1] = flight{int32(i), int32(lap * n)}
			default:
				undo := e
				possible := !l.pages[s.page].stays && (c.may == nil || c.may[s.page]) && p.makeRoom(&e, at, s.bytes, arena, n)
				wait := max(0, max(e.copied, e.free)+s.transfer-e.now)
				if !begins || possible && c.allows(i, waited+wait, idle) {
					p.bring(&e, flight{int32(i), int32(lap * n)})
					e.now = max(e.now, e.copied)
					places[s.page] = planner.Streamed
					waited += wait
					break
				}
				e = undo
				places[s.page] = planner.Resident
				resident += s.bytes
			}
			p.begin[at] = e.now
			e.now += s.time(places[s.page])
		}
	}
	return resident
}
