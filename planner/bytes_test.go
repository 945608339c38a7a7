package planner

import (
	"strings"
	"testing"
)

func TestSizesAreReadAsPeopleWriteThem(t *testing.T) {
	tests := map[string]Bytes{
		"0": 0, "1024": 1024, "6GiB": 6 << 30, "6 GiB": 6 << 30, "6g": 6 << 30, "500MB": 500_000_000, "1.5gib": 3 << 29, "1e9": 1_000_000_000,
		"1_000": 1000, "2 TiB": 2 << 40, "0.5KiB": 512,
	}
	for text, want := range tests {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, not %d", text, got, err, want)
		}
	}
}

func TestWhatIsNoSizeIsQuoted(t *testing.T) {
	for _, text := range []string{"", "-1", "lots", "6 cows", "1/2", "0x10", "nan", "inf", "1e99GiB", "99999999999TiB", "5%", "1.", "--"} {
		if got, err := ParseBytes(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
}

func TestSharesAndCapacities(t *testing.T) {
	shares := map[string]Share{"": {}, "25%": {MilliPercent: 25_000}, "12.5 %": {MilliPercent: 12_500}, "2GiB": {Bytes: 2 << 30}}
	for text, want := range shares {
		if got, err := ParseShare(text); err != nil || got != want {
			t.Errorf("share %q: got %+v, %v", text, got, err)
		}
	}
	capacities := map[string]Capacity{"": {}, "1e9": {Parameters: 1_000_000_000}, "1000": {Parameters: 1000}, "2GiB": {Bytes: 2 << 30}, "7B": {Bytes: 7}}
	for text, want := range capacities {
		if got, err := ParseCapacity(text); err != nil || got != want {
			t.Errorf("capacity %q: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"0%", "1001%", "-3%", "0", "0GiB", "%"} {
		if got, err := ParseShare(text); err == nil {
			t.Errorf("share %q: got %+v", text, got)
		}
	}
	for _, text := range []string{"0", "25%", "-1", "1e60"} {
		if got, err := ParseCapacity(text); err == nil {
			t.Errorf("capacity %q: got %+v", text, got)
		}
	}
}

func TestSizesAndTimesArePrintedForPeople(t *testing.T) {
	sizes := map[Bytes]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", -(3 << 29): "-1.5 GiB", 9 << 20: "9.0 MiB"}
	for size, want := range sizes {
		if size.String() != want {
			t.Errorf("got %v, not %s", size, want)
		}
	}
	times := map[Nanoseconds]string{999: "999 ns", 12_400: "12.4 us", 12_400_000: "12.4 ms", 1_200_000_000: "1.20 s"}
	for time, want := range times {
		if time.String() != want {
			t.Errorf("got %v, not %s", time, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"25%", "6GiB", "1e9", "-1", "1.5.5", "9e99TiB", "٣GiB", "1_0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if share, err := ParseShare(text); err == nil {
			if again, err := ParseShare(share.String()); err != nil || again != share {
				t.Errorf("%q is %+v, but %q is %+v, %v", text, share, share.String(), again, err)
			}
		}
		if capacity, err := ParseCapacity(text); err == nil {
			if again, err := ParseCapacity(capacity.String()); err != nil || again != capacity {
				t.Errorf("%q is %+v, but %q is %+v, %v", text, capacity, capacity.String(), again, err)
			}
		}
	})
}
