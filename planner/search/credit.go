package search

import (
	"slices"

	"github.com/optimem/optimem/planner"
)

// full is the denominator of shares.
const full = 1 << 12

// A credit says how much of the idle time of a lap may be used up by the end of each stop.
type credit struct {
	shares []int64 // per stop, how much of the lap lies before its end, in parts of full
	ahead  int64   // given in advance, in parts of full
	may    []bool  // per page, whether it may stream; nil: all may
}

// allows tells whether the device may have waited so long by the end of stop i, if a whole lap may idle for idle.
func (c credit) allows(i int, waited, idle planner.Nanoseconds) bool {
	part := planner.Nanoseconds(min(full, c.shares[i]+c.ahead))
	return waited <= idle/full*part+idle%full*part/full
}

// shares measure how far into the lap each stop ends: by bytes, by number, and by compute time.
func (l *lap) shares() [3][]int64 {
	n := len(l.stops)
	bytes, count, time := make([]int64, n), make([]int64, n), make([]int64, n)
	for i, s := range l.stops {
		bytes[i], count[i], time[i] = int64(s.bytes), 1, int64(s.gap)
	}
	return [3][]int64{runningShares(bytes), runningShares(count), runningShares(time)}
}

// runningShares are the sums up to each part, in parts of full.
func runningShares(parts []int64) []int64 {
	var whole, sum int64
	for _, part := range parts {
		whole += part
	}
	shares := make([]int64, len(parts))
	for i, part := range parts {
		sum += part
		shares[i] = sum / (whole/full + 1)
	}
	return shares
}

// spend decides in one run over two laps which pages stream, so that the lap idles for about idle. A page streams if the credit
// allows the time that the device has waited so far, this page included. Other pages become resident, except those on the CPU.
// It fills places, and returns the bytes of the residents.
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
				possible := !l.pages[s.page].mustStay && (c.may == nil || c.may[s.page]) && p.makeRoom(&e, at, s.bytes, arena, n)
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

// tryCredits runs credit passes in which every page may stream.
func (s *finder) tryCredits() { s.tryCreditsOf(nil, s.arenas(), creditEffort) }

// tryCreditsOf runs credit passes with several arenas and credits until the effort is used up. In each it looks for the
// shortest idle time that fits. Where may is not nil, only marked pages may stream.
func (s *finder) tryCreditsOf(may []bool, arenas []planner.Bytes, effort int) {
	shares := s.lap.shares()
	limit := s.effort + effort
	for _, ahead := range []int64{0, full * 8 / 100, full / 5} {
		for _, share := range shares {
			for _, arena := range arenas {
				if s.effort > limit {
					return
				}
				s.tighten(make([]planner.Placement, len(s.lap.pages)), arena, credit{share, ahead, may})
			}
		}
	}
}

// arenas are the arenas to try: multiples of large pages. Those that are good most often come first.
func (s *finder) arenas() []planner.Bytes {
	sizes := make([]planner.Bytes, 0, len(s.lap.pages))
	for _, page := range s.lap.pages {
		if !page.mustStay {
			sizes = append(sizes, page.bytes)
		}
	}
	if len(sizes) == 0 {
		return nil
	}
	slices.Sort(sizes)
	var out []planner.Bytes
	for _, halves := range []planner.Bytes{4, 6, 3, 8, 5, 2, 12} {
		for _, percentile := range []int{100, 90, 75, 50} {
			arena := sizes[(len(sizes)-1)*percentile/100] * halves / 2
			if arena <= s.budget && !slices.Contains(out, arena) {
				out = append(out, arena)
			}
		}
	}
	return out
}

// tighten looks for the shortest idle time with which a credit pass fits the budget, and offers the placements that fit on the
// way. Pages that are on the CPU in places stay there.
func (s *finder) tighten(places []planner.Placement, arena planner.Bytes, c credit) {
	var fits []planner.Placement // the latest placements that fit; a long list offers these alone
	var low, high planner.Nanoseconds = -1, 0
	for _, stop := range s.lap.stops {
		high += stop.transfer
	}
	for high-low > max(1, s.lap.floor/4096) {
		middle := low + (high-low)/2
		if s.spend(places, arena, middle, c)+arena > s.budget {
			low = middle
			continue
		}
		high = middle
		if fits = slices.Clone(places); len(places) <= shortList {
			s.offer(places)
		}
	}
	if fits != nil && len(places) > shortList {
		s.offer(fits)
	}
}
