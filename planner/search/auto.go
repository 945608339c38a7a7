package search

import "github.com/optimem/optimem/planner"

// mixed plans from a recording where pages may also stay in RAM for the CPU to compute. The plan is at least as good as that of
// page.
func (b builder) mixed() (planner.Plan, error) {
	best, err := b.best(func(l *lap) *search {
		s := newSearch(l, b.budget)
		s.mayLeave = b.mayLeave(l)
		return s
	})
	if err == nil {
		best.Bound = planner.LPBound(b.m, b.machine, b.budget, true)
	}
	return best, err
}

// knowsCPU tells whether there are times of the CPU.
func (b builder) knowsCPU() bool {
	for _, step := range b.m.Steps {
		if step.CPU > 0 {
			return true
		}
	}
	return false
}

// mayLeave marks the pages that the CPU can compute: none of the steps that they are held in begins the use of another page,
// and no step of another page's use lies in theirs.
func (b builder) mayLeave(l *lap) []bool {
	held := make([]int, len(b.m.Steps)+1) // by how many pages, as differences
	for _, d := range l.pages {
		for _, use := range d.uses {
			held[use.First]++
			held[use.Last+1]--
		}
	}
	shared := make([]int, len(b.m.Steps)+1) // steps before that are held by several
	holders := 0
	for s := range b.m.Steps {
		holders += held[s]
		shared[s+1] = shared[s]
		if holders > 1 {
			shared[s+1]++
		}
	}
	may := make([]bool, len(l.pages))
	for i, d := range l.pages {
		may[i] = true
		for _, use := range d.uses {
			may[i] = may[i] && shared[use.Last+1] == shared[use.First]
		}
	}
	return may
}

// tryCPU offers patterns of runs of pages for the CPU, from none to all, each with the credit passes that do best as a rule.
func (s *search) tryCPU() {
	var may []int
	for i, yes := range s.mayLeave {
		if yes {
			may = append(may, i)
		}
	}
	if len(may) == 0 {
		return
	}
	limit := s.effort + creditEffort
	shares := s.lap.shares()
	for _, length := range []int{1, 2, 4, 8, 16, len(may)} {
		for part := 1; part <= cpuParts; part++ {
			places := make([]planner.Placement, len(s.lap.pages))
			markRuns(places, may, length, part)
			for _, arena := range s.arenas()[:min(3, len(s.arenas()))] {
				if s.effort > limit {
					return
				}
				s.halve(places, arena, credit{shares[0], one * 8 / 100, nil})
			}
			s.offer(s.awayUnlessLeft(places))
		}
	}
}

const cpuParts = 12 // shares of the pages that tryCPU tries to leave to the CPU

// markRuns leaves part of cpuParts of some pages to the CPU, in runs of length, spread evenly.
func markRuns(places []planner.Placement, may []int, length, part int) {
	for k, page := range may {
		run := k / length
		if (run+1)*part/cpuParts > run*part/cpuParts {
			places[page] = planner.OnCPU
		}
	}
}

func (s *search) awayUnlessLeft(places []planner.Placement) []planner.Placement {
	out := s.lap.allAway()
	for i, p := range places {
		if p == planner.OnCPU {
			out[i] = planner.OnCPU
		}
	}
	return out
}
