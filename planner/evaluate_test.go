package planner

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// allStreamed is the plan in which every unit streams through an arena of k of them.
func allStreamed(m Manifest, k int) Plan {
	size := m.Units[0].Bytes
	p := Plan{Mode: ModePage, Arena: Bytes(k) * size, Budget: Bytes(k) * size}
	for i, u := range m.Units {
		p.Pages = append(p.Pages, Page{Units: []int{i}, Bytes: u.Bytes, Placement: Streamed})
		p.Copies = append(p.Copies, Copy{Page: i, Offset: Bytes(i%k) * size, First: u.Uses[0].First, Last: u.Uses[0].Last, After: min(k, len(m.Units))})
	}
	return p
}

func TestUniformPagesFollowTheFormula(t *testing.T) {
	// All streamed through K buffers: period = n max(t, g, (t + g)/K).
	const n, bytes = 12, 512 * 1000
	for _, compute := range []Nanoseconds{10_000, 42_000, 60_000, 200_000} {
		for _, k := range []int{1, 2, 3, 4} {
			m := uniform(n, bytes, compute)
			copyTime := pcie.Link.Transfer(bytes)
			timeline, err := Evaluate(m, allStreamed(m, k), pcie)
			if err != nil {
				t.Fatal(err)
			}
			want := n * max(copyTime, compute, (copyTime+compute)/Nanoseconds(k))
			if got := timeline.Period; got < want-n || got > want+n {
				t.Errorf("compute %v, %d buffers: got %v, not %v", compute, k, got, want)
			}
		}
	}
}

func TestOneBufferIsCopyThenCompute(t *testing.T) {
	m := chainOf([]Bytes{512 * 1000, 512 * 1000, 512 * 1000}, []Nanoseconds{1000, 2000, 3000})
	timeline, err := Evaluate(m, allStreamed(m, 1), pcie)
	if want := 3*pcie.Link.Transfer(512*1000) + 6000; err != nil || timeline.Period != want {
		t.Errorf("got %v, %v, not %v", timeline.Period, err, want)
	}
}

func TestACopyThatNeedsBytesStillHeldIsADeadlock(t *testing.T) {
	m := uniform(2, 512, 1)
	p := allStreamed(m, 1)
	p.Copies[0].Last = 1
	if _, err := Evaluate(m, p, pcie); !errors.Is(err, ErrDeadlock) {
		t.Errorf("got %v", err)
	}
	if err := p.Check(m); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestActivationsCrossBehindTheCopiesThatHaveRoom(t *testing.T) {
	// Two pages stream, one is the CPU's. While it computes both copies get room: what crosses waits for them.
	m := uniform(3, 512*1000, 1000)
	m.Steps[0].CPU = 2000
	p := allStreamed(m, 2)
	p.Mode, p.Pages[0].Placement, p.Copies = ModeAuto, OnCPU, p.Copies[1:]
	for k := range p.Copies {
		p.Copies[k].Offset, p.Copies[k].After = Bytes(k)*512*1000, 2
	}
	machine := pcie
	machine.Crossing = Link{Latency: 300, Rate: 1_000_000_000}
	timeline, err := Evaluate(m, p, machine)
	crossing, copyTime := Nanoseconds(300), pcie.Link.Transfer(512*1000)
	want := 2*copyTime + crossing + 1000 // from the end of the first page's step, which frees its bytes, to that in the next lap
	if err != nil || timeline.Period != want {
		t.Errorf("got %v, %v, not %v", timeline.Period, err, want)
	}
	if timeline.StepStart[1] != timeline.CopyEnd[1]+crossing {
		t.Errorf("activations are there at %v, the copies at %v", timeline.StepStart[1], timeline.CopyEnd[1])
	}
}

func TestTransfersRoundUpAndDoNotOverflow(t *testing.T) {
	link := Link{10, 3_000_000_000}
	for size, want := range map[Bytes]Nanoseconds{0: 10, 1: 11, 3: 11, 4: 12, 3_000_000_000: 1_000_000_010} {
		if got := link.Transfer(size); got != want {
			t.Errorf("%d bytes: got %d ns, not %d", int64(size), int64(got), int64(want))
		}
	}
	if got := (Link{0, 34_466_913_223}).Transfer(9_123_840); got != 264_714 { // a hair above 264713
		t.Errorf("9123840 bytes: got %d ns, not 264714", int64(got))
	}
	if got := (Link{0, 1}).Transfer(largest); got != largest {
		t.Errorf("got %d", int64(got))
	}
}

func TestScalingTimeScalesThePeriod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := manifests(t)
		machine := Machine{Link: Link{Nanoseconds(rapid.IntRange(0, 9_000).Draw(t, "latency")), 1_000_000_000}} // whole ns per byte
		p, err := Build(m, machine, percent(int64(rapid.IntRange(10, 100).Draw(t, "share"))))
		if tooSmall(t, err) {
			return
		}
		slow := m
		slow.Steps = append([]Step(nil), m.Steps...)
		for i := range slow.Steps {
			slow.Steps[i].Compute *= 4
		}
		timeline, _ := Evaluate(slow, p, Machine{Link: Link{4 * machine.Link.Latency, machine.Link.Rate / 4}})
		if timeline.Period != 4*p.Period {
			t.Fatalf("%d at quarter speed, %d before", int64(timeline.Period), int64(p.Period))
		}
	})
}

func TestTheStepsAndCrossingsOfAPlanFillItsPeriod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := manifests(t)
		o := percent(int64(rapid.IntRange(1, 110).Draw(t, "share")))
		o.Mode = rapid.SampledFrom([]Mode{ModeChunk, ModeAuto}).Draw(t, "mode")
		p, err := Build(m, pcie, o)
		if tooSmall(t, err) || p.Laps > 1 {
			return
		}
		timeline, err := Evaluate(m, p, pcie)
		if err != nil {
			t.Fatal(err)
		}
		var sum Nanoseconds
		for s, step := range m.Steps {
			takes := step.Compute
			if timeline.OnCPU != nil && timeline.OnCPU[s] {
				takes = step.CPU
			}
			if got := timeline.StepEnd[s] - timeline.StepStart[s]; got != takes {
				t.Errorf("step %d takes %v, not %v", s, got, takes)
			}
			if sum += takes; timeline.Crossing != nil {
				sum += timeline.Crossing[s]
			}
		}
		sum += timeline.Back
		if len(p.Copies) == 0 && sum != p.Period {
			t.Errorf("steps and crossings take %v, the period is %v", sum, p.Period)
		}
	})
}

func TestNoPlanBeatsTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "n")
		sizes, times := make([]Bytes, n), make([]Nanoseconds, n)
		for i := range n {
			sizes[i] = Bytes(512 * rapid.IntRange(1, 2000).Draw(t, "size"))
			times[i] = Nanoseconds(rapid.IntRange(0, 200_000).Draw(t, "time"))
		}
		m := chainOf(sizes, times)
		budget := m.Weights() * Bytes(rapid.IntRange(20, 95).Draw(t, "percent")) / 100
		bound := Bound(m, pcie, budget)
		if best, found := newOracle(m, pcie).best(budget); found && best < float64(bound) {
			t.Fatalf("a set of residents takes %.1f, the bound is %d", best, int64(bound))
		}
	})
}
