package contract

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/optimem/optimem/internal/strict"
	"github.com/optimem/optimem/planner"
)

// UsualLatency is the latency of a copy where a document does not give it.
const UsualLatency planner.Nanoseconds = 10_000

// UsualLink is the link where a document does not give it.
const UsualLink = "pcie4x16"

// perLane is the measured rate per lane of copies from pinned memory, in bytes per second (simgpu's links.json).
var perLane = map[int]planner.Bytes{3: 775_000_000, 4: 1_562_500_000, 5: 3_500_000_000}

var pcie = regexp.MustCompile(`^pcie([3-5])x(1|2|4|8|16)$`)

// ParseLink reads "pcie4x16", or a rate such as "12GB/s" or "12e9" in bytes per second.
func ParseLink(text string) (planner.Link, error) {
	plain := strings.ToLower(strings.TrimSpace(text))
	if parts := pcie.FindStringSubmatch(plain); parts != nil {
		generation, _ := strconv.Atoi(parts[1])
		width, _ := strconv.Atoi(parts[2])
		return planner.Link{Latency: UsualLatency, Rate: perLane[generation] * planner.Bytes(width)}, nil
	}
	rate, err := planner.ParseBytes(strings.TrimSuffix(plain, "/s"))
	if err != nil || rate == 0 {
		return planner.Link{}, fmt.Errorf("%q is no link: give pcie3x16, pcie4x8 and the like (3 to 5, x1 to x16), or a rate such as 12GB/s", strict.Shown(text))
	}
	return planner.Link{Latency: UsualLatency, Rate: rate}, nil
}
