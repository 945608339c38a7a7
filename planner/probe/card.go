package probe

import (
	"math"

	"github.com/optimem/optimem/planner"
)

// A Card is one GPU, real or simulated, as NVML shows it.
type Card struct {
	Index         int    `json:"index"` // NVML's, in PCI bus order; not the index of CUDA or PyTorch, see Reading.CardByUUID
	UUID          string `json:"uuid"`
	Name          string `json:"name"`
	DriverVersion string `json:"driver_version"`
	// TotalBytes is 0 where the card does not tell its memory (some that share it with the host do not); the other
	// sizes are then 0 and mean nothing.
	TotalBytes planner.Bytes `json:"total_bytes"`
	FreeBytes  planner.Bytes `json:"free_bytes"`
	// UsedBytes is what processes have allocated, and where ReservedBytes is 0 what driver and firmware keep besides.
	UsedBytes     planner.Bytes `json:"used_bytes"`
	ReservedBytes planner.Bytes `json:"reserved_bytes"`
	Link          Link          `json:"link"`
	MIG           bool          `json:"mig"`       // split into instances; the sizes are those of the whole card
	Processes     []Process     `json:"processes"` // one entry a PID, in the order of PIDs
}

// MemoryKnown says whether the card told its memory.
func (c Card) MemoryKnown() bool { return c.TotalBytes > 0 }

// HeldBy is the device memory of a process, its CUDA context included; 0 where it holds none or NVML does not tell. PIDs
// are those of the host: in a container with PIDs of its own a process does not find itself.
func (c Card) HeldBy(pid int) planner.Bytes {
	for _, p := range c.Processes {
		if p.PID == pid {
			return p.Bytes
		}
	}
	return 0
}

// A Process holds memory of a card.
type Process struct {
	PID   int           `json:"pid"`
	Bytes planner.Bytes `json:"bytes"` // 0 where not known
	Name  string        `json:"name"`  // empty where not known; chosen by the process, printable characters only
	Type  ProcessType   `json:"type"`
}

// ProcessType is what a process uses a card for.
type ProcessType string

// The types of processes.
const (
	Compute            ProcessType = "compute"
	Graphics           ProcessType = "graphics"
	ComputeAndGraphics ProcessType = "compute+graphics"
)

// signed is n as Bytes, at most the largest value of the type.
func signed(n uint64) planner.Bytes { return planner.Bytes(min(n, math.MaxInt64)) }

// plus adds sizes that are not negative. The sum is at most the largest value of the type.
func plus(a, b planner.Bytes) planner.Bytes { return signed(uint64(a) + uint64(b)) }
