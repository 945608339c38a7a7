package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/shirou/gopsutil/v3/mem"

	"github.com/optimem/optimem/planner"
)

// A Host is the memory of the machine, as this process may use it.
type Host struct {
	TotalBytes     planner.Bytes `json:"total_bytes"`
	AvailableBytes planner.Bytes `json:"available_bytes"` // memory of the whole machine that is available without swapping
	Cgroup         Cgroup        `json:"cgroup"`
	FreeBytes      planner.Bytes `json:"free_bytes"` // memory for this process: the smaller of AvailableBytes and the headroom of the cgroup
	// Memlock is how much this process may lock with mlock (RLIMIT_MEMLOCK, soft). Drivers that lock pages on a
	// process's behalf, CUDA's among them, need not keep to it.
	Memlock Limit `json:"memlock"`
	Swap    Swap  `json:"swap"`
}

// Swap is the machine's swap space; a weight that lands there is lost to any plan.
type Swap struct {
	TotalBytes planner.Bytes `json:"total_bytes"`
	FreeBytes  planner.Bytes `json:"free_bytes"`
}

// HostMemory reads the memory of this machine; root is where /proc and /sys/fs/cgroup are found.
func HostMemory(root fs.FS) HostReader { return hostMemory{root} }

type hostMemory struct{ root fs.FS }

func (h hostMemory) ReadHost(ctx context.Context) (Host, Notes, error) {
	memory, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return Host{}, nil, fmt.Errorf("ask the system for its memory: %w", err)
	}
	if memory.Total == 0 {
		return Host{}, nil, errors.New("ask the system for its memory: it tells 0 bytes in all; see that /proc is mounted")
	}
	host := Host{TotalBytes: signed(memory.Total), AvailableBytes: signed(memory.Available)}
	notes := host.readLimits(ctx, h.root)
	host.FreeBytes = host.Cgroup.Headroom.Of(host.AvailableBytes)
	return host, notes, ctx.Err()
}

// readLimits reads the limits, which a plan can do without. A limit that cannot be read is a note.
func (h *Host) readLimits(ctx context.Context, root fs.FS) (notes Notes) {
	var err error
	if h.Cgroup, err = readCgroup(root); err != nil {
		notes = append(notes, fmt.Sprintf("The memory limit of this container or service is not known (%v), "+
			"so the host's free memory may be less than it seems.", err))
	}
	if h.Memlock, err = readMemlock(); err != nil {
		notes = append(notes, fmt.Sprintf("The limit on locked memory is not known (%v).", err))
	}
	if h.Swap, err = readSwap(ctx); err != nil {
		notes = append(notes, fmt.Sprintf("The swap space is not known (%v).", err))
	}
	return notes
}

func readSwap(ctx context.Context) (Swap, error) {
	s, err := mem.SwapMemoryWithContext(ctx)
	if err != nil {
		return Swap{}, fmt.Errorf("ask the system for its swap space: %w", err)
	}
	return Swap{TotalBytes: signed(s.Total), FreeBytes: signed(s.Free)}, nil
}
