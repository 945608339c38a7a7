package planner

import "slices"

// A side says which steps the CPU computes, and how long activations take to change sides.
type side struct {
	onCPU    []bool        // per step; nil where the device computes all
	crossing []Nanoseconds // per step, for activations to cross before it; nil likewise
	back     Nanoseconds   // for the result to cross back to the side of the input
}

// sideOf finds the side of every step. It is the CPU where uses of a page on the CPU begin. It is the device where only uses of
// other pages begin. It is the side of the step before where no use begins. Activations stay on their side until a step needs
// them on the other. The input and the result are on the device, or in RAM if the mode says so.
func sideOf(m Manifest, p Plan, machine Machine) side {
	reads := readSides(m, p)
	if reads == nil {
		return side{}
	}
	s := side{onCPU: make([]bool, len(m.Steps)), crossing: make([]Nanoseconds, len(m.Steps))}
	ends := p.Mode.EndsInRAM()
	before := ends
	for i, step := range m.Steps {
		s.onCPU[i] = before
		if reads[i] != nothing {
			s.onCPU[i] = reads[i] == byCPU
		}
		if s.onCPU[i] != before {
			s.crossing[i] = machine.CrossingTime(step.Crossing)
		}
		before = s.onCPU[i]
	}
	if before != ends {
		s.back = machine.CrossingTime(0)
	}
	return s
}

// A reading is which side begins uses of pages at a step. Where both do it is the CPU.
type reading uint8

const (
	nothing reading = iota // no use begins
	byDevice
	byCPU
)

// readSides tells for every step which side begins uses there; nil where all is on the device.
func readSides(m Manifest, p Plan) []reading {
	byTheCPU := func(page Page) bool { return page.Placement.ByCPU() }
	if !p.Mode.EndsInRAM() && !slices.ContainsFunc(p.Pages, byTheCPU) {
		return nil
	}
	reads := make([]reading, len(m.Steps))
	for _, page := range p.Pages {
		where := byDevice
		if page.Placement.ByCPU() {
			where = byCPU
		}
		for _, u := range page.Units {
			for _, use := range m.Units[u].Uses {
				reads[use.First] = max(reads[use.First], where)
			}
		}
	}
	return reads
}

// cross is how long activations take to cross before a step.
func (s side) cross(step int) Nanoseconds {
	if s.crossing == nil {
		return 0
	}
	return s.crossing[step]
}

// time is how long step i computes on its side.
func (s side) time(i int, step Step) Nanoseconds {
	if s.onCPU != nil && s.onCPU[i] {
		return step.CPU
	}
	return step.Compute
}

// hostTime is the time in which RAM gives the bytes that copies and the CPU read in one lap; 0 where its rate is not known.
func hostTime(m Manifest, p Plan, machine Machine) Nanoseconds {
	if machine.Host.Rate <= 0 {
		return 0
	}
	var sum Bytes
	for _, c := range p.Copies {
		sum += p.Pages[c.Page].Bytes
	}
	sum /= Bytes(p.Turn())
	for _, page := range p.Pages {
		if page.Placement.ByCPU() {
			for _, u := range page.Units {
				sum += m.Units[u].Bytes * Bytes(len(m.Units[u].Uses))
			}
		}
	}
	return Link{0, machine.Host.Rate}.Transfer(sum)
}
