package report

import (
	"testing"

	"github.com/optimem/optimem/planner"
)

func TestCertificates(t *testing.T) {
	measured := Certificate{Period: 12_400_000, Measured: true, Bound: 12_145_000, Compute: 3_000_000, Budget: 2 << 30, Mode: planner.ModePage}
	with := func(change func(*Certificate)) Certificate { c := measured; change(&c); return c }
	for want, c := range map[string]Certificate{
		"12.4 ms per forward, 2.1 % above what this link and 2.0 GiB allow":                                                                   measured,
		"12.4 ms per forward (predicted, nothing measured), 2.1 % above what this link and 2.0 GiB allow":                                     with(func(c *Certificate) { c.Measured = false }),
		"12.4 ms per forward (estimated, nothing measured), 2.1 % above what this link and 2.0 GiB allow":                                     with(func(c *Certificate) { c.Measured, c.Estimated = false, true }),
		"12.4 ms per forward (simulated), 2.1 % above what this link and 2.0 GiB allow":                                                       with(func(c *Certificate) { c.Simulated = true }),
		"12.4 ms per forward (predicted for a simulated card, nothing measured), 2.1 % above what this link and 2.0 GiB allow":                with(func(c *Certificate) { c.Simulated, c.Measured = true, false }),
		"12.4 ms per forward, 2.1 % above what this card's own speed and 2.0 GiB allow":                                                       with(func(c *Certificate) { c.Compute = c.Bound }),
		"12.4 ms per forward, 2.1 % above what this CPU, this card and the chunk's capacity allow":                                            with(func(c *Certificate) { c.Mode = planner.ModeChunk }),
		"12.4 ms per forward, 0.0 % above what this link and 2.0 GiB allow":                                                                   with(func(c *Certificate) { c.Bound = c.Period }),
		"12.4 ms per forward, 0.002 % above what this link and 2.0 GiB allow":                                                                 with(func(c *Certificate) { c.Bound = c.Period - 250 }),
		"12.4 ms per forward; what could be reached is not known":                                                                             with(func(c *Certificate) { c.Bound = 0 }),
		"the time per forward is not known":                                                                                                   with(func(c *Certificate) { c.Period = 0 }),
		"12.4 ms per forward, 4.6 % below what this link and 2.0 GiB were found to allow: the bound or the time is wrong, please report it":   with(func(c *Certificate) { c.Bound = 13_000_000 }),
		"12.4 ms per forward, 8e-06 % below what this link and 2.0 GiB were found to allow: the bound or the time is wrong, please report it": with(func(c *Certificate) { c.Bound = c.Period + 1 }),
	} {
		if got := c.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestFigures(t *testing.T) {
	for ns, want := range map[planner.Nanoseconds]string{
		0: "0 ns", 7: "7 ns", 999: "999 ns", 1_000: "1.00 us", 9_994: "9.99 us", 9_996: "10.0 us", 99_960: "100 us", 999_400: "999 us", 999_600: "1.00 ms",
		12_400_000: "12.4 ms", 1_520_000_000: "1.52 s", 90_000_000_000: "90.0 s", 5_000_000_000_000: "5000 s", -1_500: "-1.50 us",
	} {
		if got := Duration(ns); got != want {
			t.Errorf("%d is %q, want %q", ns, got, want)
		}
	}
}
