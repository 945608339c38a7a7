package planner

import (
	"cmp"
	"slices"
)

// LPBound returns a lower bound, in ns, on the period of every policy that may also compute on the CPU. It is the value of a
// linear program. In it every unit is divided at will into parts that are resident, streamed once in a lap, or read by the CPU:
//
//	sum over steps of compute, each where it runs <= period
//	bytes streamed / rate                          <= period
//	bytes resident                                 <= budget
//	(bytes streamed + read by the CPU) / RAM rate  <= period      where that rate is known
//
// For one period the best is to keep from the CPU as many bytes as memory and link can take, those with the most time saved per
// byte first. The least period is found by halving. Where streams is false no page streams.
//
// Latencies and crossings do not count. Steps at which no use begins run where they are fastest. A step at which several uses
// begin counts as saved for each of them. All of this keeps the bound low.
func LPBound(m Manifest, machine Machine, budget Bytes, streams bool) Nanoseconds {
	items, base, total := lpItems(m)
	low, high := Nanoseconds(-1), base+total
	for high-low > 1 {
		middle := low + (high-low)/2
		room := budget
		if streams {
			room += moved(machine.Link.OrUsual().Rate, middle)
		}
		if base+max(0, total-saved(items, room, total)) <= middle {
			high = middle
		} else {
			low = middle
		}
	}
	if machine.Host.Rate > 0 {
		high = max(high, bareTransfer(Link{Rate: machine.Host.Rate}, max(0, readBytes(m)-budget)))
	}
	return high
}

// readBytes is the sum of the units that some forward reads.
func readBytes(m Manifest) (sum Bytes) {
	for _, u := range m.Units {
		if len(u.Uses) > 0 {
			sum += u.Bytes
		}
	}
	return sum
}

// An lpItem is a unit and the time that its steps save if the device reads it.
type lpItem struct {
	bytes Bytes
	saved Nanoseconds
}

// lpItems lists the units that are read, those best to keep from the CPU first. base is the sum of the least times of all steps.
// total is how much more time the steps take if the CPU reads every unit.
func lpItems(m Manifest) (items []lpItem, base, total Nanoseconds) {
	more := make([]Nanoseconds, len(m.Steps)) // that the CPU takes
	read := make([]bool, len(m.Steps))
	for s, step := range m.Steps {
		base += min(step.Compute, step.CPU)
		more[s] = max(0, step.CPU-step.Compute)
	}
	for _, u := range m.Units {
		if len(u.Uses) == 0 {
			continue
		}
		item := lpItem{bytes: u.Bytes}
		for _, use := range u.Uses {
			item.saved += more[use.First]
			if !read[use.First] {
				read[use.First] = true
				total += more[use.First]
			}
		}
		items = append(items, item)
	}
	slices.SortFunc(items, func(a, b lpItem) int {
		if a.bytes == 0 || b.bytes == 0 {
			return cmp.Compare(a.bytes, b.bytes)
		}
		return cmp.Compare(float64(b.saved)*float64(a.bytes), float64(a.saved)*float64(b.bytes))
	})
	return items, base, total
}

// saved is the most time that keeping size bytes from the CPU saves, rounded up, at most total.
func saved(items []lpItem, size Bytes, total Nanoseconds) Nanoseconds {
	var sum Nanoseconds
	for _, item := range items {
		if item.bytes > size {
			return sum + Nanoseconds(float64(item.saved)*(float64(max(0, size))/float64(item.bytes))*(1+1e-9)) + 1
		}
		if sum += item.saved; sum >= total {
			return total
		}
		size -= item.bytes
	}
	return sum
}

// moved is how many bytes a link moves in a time, rounded up.
func moved(rate Bytes, time Nanoseconds) Bytes {
	size := float64(rate) * float64(time) / 1e9
	if size > Largest {
		return Largest
	}
	return Bytes(size*(1+1e-9)) + 1
}
