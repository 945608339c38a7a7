package search

import (
	"slices"

	"github.com/optimem/optimem/planner"
)

// A stop is one use of one page in a lap.
type stop struct {
	page     int32
	anchor   int32               // the last stop that begins within this use
	bytes    planner.Bytes       // of the page
	transfer planner.Nanoseconds // of the page, over the link
	gap      planner.Nanoseconds // device time from here to the next stop
	cpuGap   planner.Nanoseconds // the same on the CPU
	tail     planner.Nanoseconds // device time from the anchor to the end of the use
	cross    planner.Nanoseconds // to bring the activations at this border to the other side
}

// A lap is one forward as the search sees it: every use of every page, in order, and the times between them.
type lap struct {
	stops []stop
	uses  []visit
	lead  planner.Nanoseconds // device time before the first stop
	back  planner.Nanoseconds // to bring the result back from the CPU
	floor planner.Nanoseconds // device time of all steps
	pages []draft
	first []int32       // per page, its first stop
	dram  planner.Bytes // bytes per second that copies and the CPU share; 0 is without limit

	missing []planner.Bytes // per page, the bytes to copy to make it resident; nil where the change does not count
	link    planner.Link
}

// newLap lays out the uses of pages over the steps of a manifest.
func newLap(m planner.Manifest, machine planner.Machine, pages []draft) *lap {
	all := visitsOf(pages)
	l := &lap{pages: pages, uses: all, dram: machine.Host.Rate, back: machine.CrossingTime(0), link: machine.Link}
	device, cpu := timesBefore(m.Steps)
	l.floor = device[len(m.Steps)]
	l.stops = make([]stop, len(all))
	transfers := make([]planner.Nanoseconds, len(pages))
	for i, d := range pages {
		transfers[i] = machine.Link.Transfer(d.bytes)
	}
	for i, v := range all {
		next := len(m.Steps)
		if i+1 < len(all) {
			next = all[i+1].First
		}
		l.stops[i] = stop{
			page: int32(v.of), bytes: pages[v.of].bytes, transfer: transfers[v.of],
			gap: device[next] - device[v.First], cpuGap: cpu[next] - cpu[v.First],
			cross: machine.CrossingTime(m.Steps[v.First].Crossing),
		}
	}
	if len(all) > 0 {
		l.lead = device[all[0].First]
	}
	l.setAnchors(all, device)
	l.first = make([]int32, len(pages))
	for i := len(all) - 1; i >= 0; i-- {
		l.first[all[i].of] = int32(i)
	}
	return l
}

// setAnchors finds for every use the last stop that begins within it, and the time from there to the end of the use.
func (l *lap) setAnchors(all []visit, device []planner.Nanoseconds) {
	for i, v := range all {
		anchor := firstAfter(all, v.Last) - 1
		l.stops[i].anchor = int32(anchor)
		l.stops[i].tail = device[v.Last+1] - device[all[anchor].First]
	}
}

// timesBefore are the times before every step and after the last one, on the device and on the CPU.
func timesBefore(steps []planner.Step) (device, cpu []planner.Nanoseconds) {
	device, cpu = make([]planner.Nanoseconds, len(steps)+1), make([]planner.Nanoseconds, len(steps)+1)
	for i, s := range steps {
		device[i+1], cpu[i+1] = device[i]+s.Compute, cpu[i]+s.CPU
	}
	return device, cpu
}

// bytesAt is the sum of the pages with one placement.
func (l *lap) bytesAt(places []planner.Placement, at planner.Placement) planner.Bytes {
	var sum planner.Bytes
	for i, p := range places {
		if p == at {
			sum += l.pages[i].bytes
		}
	}
	return sum
}

// copiesOf are the copies of one lap. Every use of a streamed page has a copy of its own, unless no other page streams since the
// use before: then one copy serves both.
func (l *lap) copiesOf(places []planner.Placement) []planner.Copy {
	copies := make([]planner.Copy, 0, len(l.uses))
	for _, v := range l.uses {
		if places[v.of] != planner.Streamed {
			continue
		}
		if last := len(copies) - 1; last >= 0 && copies[last].Page == v.of {
			copies[last].Last = max(copies[last].Last, v.Last)
			continue
		}
		copies = append(copies, planner.Copy{Page: v.of, First: v.First, Last: v.Last})
	}
	return copies
}

// mostAtOnce is the peak of the bytes that streamed pages take in an arena that frees them in order, and the first page of that
// peak.
func (l *lap) mostAtOnce(places []planner.Placement) (most planner.Bytes, who int) {
	copies := l.copiesOf(places)
	oldest, flying := 0, planner.Bytes(0)
	until := make([]int, len(copies)) // the last step of a copy and of all before it
	for k, c := range copies {
		until[k] = c.Last
		if k > 0 {
			until[k] = max(until[k], until[k-1])
		}
		for ; oldest < k && until[oldest] < c.First; oldest++ {
			flying -= l.pages[copies[oldest].Page].bytes
		}
		if flying += l.pages[c.Page].bytes; flying > most {
			most, who = flying, copies[oldest].Page
		}
	}
	return most, who
}

// allResident keeps every page on the device.
func (l *lap) allResident() []planner.Placement {
	return slices.Repeat([]planner.Placement{planner.Resident}, len(l.pages))
}

// allStreamed streams every page that need not be resident.
func (l *lap) allStreamed() []planner.Placement {
	places := make([]planner.Placement, len(l.pages))
	for i := range places {
		if l.pages[i].mustStay {
			places[i] = planner.Resident
		}
	}
	return places
}

// residentInOrder makes pages resident in an order until the next one does not fit into room.
func (l *lap) residentInOrder(order []int, room planner.Bytes) []planner.Placement {
	places := l.allStreamed()
	room -= l.bytesAt(places, planner.Resident)
	for _, page := range order {
		if room -= l.pages[page].bytes; room < 0 {
			break
		}
		places[page] = planner.Resident
	}
	return places
}
