package probe

import "github.com/optimem/optimem/planner"

// A Link is the PCIe way from the host to a card. 0 means not known.
//
// An idle card lowers its generation to save power, so read the values of now while it works, or lean on the largest
// ones. Both rates are the link's own in one direction, line coding taken off; packet headers take more, and a copy from
// pinned memory reaches about four fifths of it. Plans use measured rates; these are for a first guess and for asking why
// a measured one is low. Cards that NVLink ties to the CPU are faster than their PCIe link.
type Link struct {
	Generation        int           `json:"generation"` // now
	Width             int           `json:"width"`      // lanes, now
	MaxGeneration     int           `json:"max_generation"`
	MaxWidth          int           `json:"max_width"`
	BytesPerSecond    planner.Bytes `json:"bytes_per_second"` // now
	MaxBytesPerSecond planner.Bytes `json:"max_bytes_per_second"`
}

// lanes holds a generation's bytes per second per lane: transfers per second / 8 x the share of the line code that is
// payload (PCI Express Base Specification: 8b/10b up to generation 2, 128b/130b up to 5, 242 of 256 bytes of a flit after).
var lanes = [...]int64{
	1: 2_500_000_000 / 8 * 8 / 10,
	2: 5_000_000_000 / 8 * 8 / 10,
	3: 8_000_000_000 / 8 * 128 / 130,
	4: 16_000_000_000 / 8 * 128 / 130,
	5: 32_000_000_000 / 8 * 128 / 130,
	6: 64_000_000_000 / 8 * 242 / 256,
	7: 128_000_000_000 / 8 * 242 / 256,
}

const widest = 32 // lanes of the widest PCIe link

// linkRate is the bytes per second of a link in one direction, 0 where generation or width is not one of PCIe's.
func linkRate(generation, width int) planner.Bytes {
	if generation < 1 || generation >= len(lanes) || width < 1 || width > widest {
		return 0
	}
	return planner.Bytes(lanes[generation] * int64(width))
}
