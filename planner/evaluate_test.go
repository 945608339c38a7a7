package planner

import (
	"errors"
	"testing"
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
