package search

import "github.com/optimem/optimem/planner"

// mixed plans from a recording. The CPU may compute pages that stay in RAM. The plan is at least as good as that of page.
func (b builder) mixed() (planner.Plan, error) {
	best, err := b.best(func(l *lap) *finder {
		s := newFinder(l, b.budget)
		s.forCPU = b.cpuCanCompute(l)
		return s
	})
	if err == nil {
		best.Bound = planner.LPBound(b.m, b.machine, b.budget, true)
	}
	return best, err
}

// knowsCPU tells whether the manifest has times of the CPU.
func (b builder) knowsCPU() bool {
	for _, step := range b.m.Steps {
		if step.CPU > 0 {
			return true
		}
	}
	return false
}

// cpuCanCompute marks the pages that the CPU can compute. The steps of their uses must not be steps of uses of other pages.
func (b builder) cpuCanCompute(l *lap) []bool {
	held := make([]int, len(b.m.Steps)+1) // how many pages hold the step, as differences to the step before
	for _, d := range l.pages {
		for _, use := range d.uses {
			held[use.First]++
			held[use.Last+1]--
		}
	}
	shared := make([]int, len(b.m.Steps)+1) // how many of the steps before are held by several pages
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

// tryCPU offers patterns of runs of pages for the CPU, from few to all. Each pattern gets the credit passes that do best as a
// rule.
func (s *finder) tryCPU() {
	var may []int
	for i, yes := range s.forCPU {
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
				s.tighten(places, arena, credit{shares[0], full * 8 / 100, nil})
			}
			s.offer(s.streamedUnlessOnCPU(places))
		}
	}
}

// cpuParts is how many shares of the pages tryCPU tries for the CPU.
const cpuParts = 12

// markRuns places part of cpuParts of some pages on the CPU, in runs of length pages, spread evenly.
func markRuns(places []planner.Placement, may []int, length, part int) {
	for k, page := range may {
		run := k / length
		if (run+1)*part/cpuParts > run*part/cpuParts {
			places[page] = planner.OnCPU
		}
	}
}

// streamedUnlessOnCPU keeps the pages on the CPU, and streams all others that need not be resident.
func (s *finder) streamedUnlessOnCPU(places []planner.Placement) []planner.Placement {
	out := s.lap.allStreamed()
	for i, p := range places {
		if p == planner.OnCPU {
			out[i] = planner.OnCPU
		}
	}
	return out
}
