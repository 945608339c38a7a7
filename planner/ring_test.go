package planner

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestWaitsFindTheLatestCopyInTheSameBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lap, turn := rapid.IntRange(1, 12).Draw(t, "lap"), rapid.IntRange(1, 2).Draw(t, "turn")
		n := lap * turn
		size, offset := make([]Bytes, n), make([]Bytes, n)
		for k := range n {
			size[k], offset[k] = Bytes(rapid.IntRange(0, 5).Draw(t, "size")), Bytes(rapid.IntRange(0, 12).Draw(t, "offset"))
		}
		want := make([]int, n)
		for k := range n {
			want[k] = lap
			for distance := lap - 1; distance > 0; distance-- {
				other := (k - distance + n) % n
				if size[k] > 0 && size[other] > 0 && offset[k] < offset[other]+size[other] && offset[other] < offset[k]+size[k] {
					want[k] = distance
				}
			}
		}
		if got := Waits(size, offset, lap); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}
