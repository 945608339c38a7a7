package planner

// A side says which steps the CPU computes, and what it takes to change sides.
type side struct {
	onCPU    []bool        // per step; nil where the device computes all
	crossing []Nanoseconds // per step, for activations to cross before it; nil likewise
	back     Nanoseconds   // for the result to cross back to the device
}

// sideOf finds the side of every step: the CPU's where a page that it computes is read, that of the step before where
// nothing is read. The input and the result are on the device.
func sideOf(m Manifest, p Plan, machine Machine) side {
	if p.Mode == ModeChunk {
		return chunkSides(m, p, machine)
	}
	reads := readSides(m, p)
	if reads == nil {
		return side{}
	}
	s := side{onCPU: make([]bool, len(m.Steps)), crossing: make([]Nanoseconds, len(m.Steps))}
	before := false
	for i, step := range m.Steps {
		s.onCPU[i] = before
		if reads[i] != away {
			s.onCPU[i] = reads[i] == left
		}
		if s.onCPU[i] != before {
			s.crossing[i] = machine.crossing(step.Crossing)
		}
		before = s.onCPU[i]
	}
	if before {
		s.back = machine.crossing(0)
	}
	return s
}

// readSides tells for every step whether it begins uses of pages of the CPU (left) or of others (stay), or of none (away);
// nil where the CPU computes no page.
func readSides(m Manifest, p Plan) []place {
	var reads []place
	for _, page := range p.Pages {
		if page.Placement == OnCPU {
			reads = make([]place, len(m.Steps))
		}
	}
	if reads == nil {
		return nil
	}
	for _, page := range p.Pages {
		where := stay
		if page.Placement == OnCPU {
			where = left
		}
		for _, u := range page.Units {
			for _, use := range m.Units[u].Uses {
				reads[use.First] = max(reads[use.First], where)
			}
		}
	}
	return reads
}

func (s side) cross(step int) Nanoseconds {
	if s.crossing == nil {
		return 0
	}
	return s.crossing[step]
}

func (s side) time(i int, step Step) Nanoseconds {
	if s.onCPU != nil && s.onCPU[i] {
		return step.CPU
	}
	return step.Compute
}

// hostTime is the time that RAM needs for what copies and the CPU read of it in one lap; 0 where its rate is not known.
func hostTime(m Manifest, p Plan, machine Machine) Nanoseconds {
	if machine.Host.Rate <= 0 {
		return 0
	}
	var sum Bytes
	for _, c := range p.Copies {
		sum += p.Pages[c.Page].Bytes
	}
	sum /= Bytes(p.turn())
	for _, page := range p.Pages {
		if page.Placement == OnCPU {
			for _, u := range page.Units {
				sum += m.Units[u].Bytes * Bytes(len(m.Units[u].Uses))
			}
		}
	}
	return Link{0, machine.Host.Rate}.Transfer(sum)
}
