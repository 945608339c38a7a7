package planner

// First returns the time in ns of the first forward under a plan. The arena is empty at its start. Residents come in the
// groups of Fill, one copy per group, each in front of the first step that reads its first page; residents that are in no
// group are there already. It is an ErrDeadlock where the ring deadlocks.
func First(m Manifest, p Plan, machine Machine) (Nanoseconds, error) {
	r := newRun(m, p, machine)
	for _, group := range p.Fill {
		var size Bytes
		for _, page := range group {
			size += p.Pages[page].Bytes
		}
		r.fills = append(r.fills, filling{firstStep(m, p.Pages[group[0]]), machine.Link.Transfer(size)})
	}
	if err := r.lap(); err != nil {
		return 0, err
	}
	return r.now, nil
}

// firstStep is the step at which the first use of a page begins; the number of steps where no forward reads it.
func firstStep(m Manifest, page Page) int {
	first := len(m.Steps)
	for _, u := range page.Units {
		if uses := m.Units[u].Uses; len(uses) > 0 {
			first = min(first, uses[0].First)
		}
	}
	return first
}
