package planner

import "testing"

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
	if got := (Link{0, 1}).Transfer(Largest); got != Largest {
		t.Errorf("got %d", int64(got))
	}
}
