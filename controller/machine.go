package controller

import (
	"context"
	"log/slog"
	"time"

	"github.com/optimem/optimem/ipc"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/probe"
)

// probeGrace bounds one reading of the machine.
const probeGrace = 2 * time.Second

// A card is the device of a session.
type card struct {
	device ipc.Device // as the worker named it
	pid    int        // of the worker
	prober probe.Prober
	log    *slog.Logger
}

// freeByWorker is the device memory that the worker says it could have, 0 where it does not know.
func (c card) freeByWorker(measured ipc.Measured) planner.Bytes {
	if measured.FreeBytes > 0 {
		return planner.Bytes(measured.FreeBytes)
	}
	return planner.Bytes(c.device.FreeBytes)
}

// freeByReading is the memory that the worker could have by a reading of the card: the free memory, and the worker's own. It
// is 0 where NVML does not know the card.
func (c card) freeByReading(ctx context.Context) planner.Bytes {
	if c.device.UUID == "" {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, probeGrace)
	defer cancel()
	reading, err := c.prober.Probe(ctx)
	if err != nil {
		c.log.Warn("card not read", "error", err)
		return 0
	}
	found, ok := reading.CardByUUID(c.device.UUID)
	if !ok || !found.MemoryKnown() {
		return 0
	}
	return found.FreeBytes + found.HeldBy(c.pid)
}

// linkOf is the link as the worker measured it.
func linkOf(measured ipc.Measured) planner.Link {
	return planner.Link{
		Latency: planner.Nanoseconds(measured.LinkLatencyNS),
		Rate:    planner.Bytes(measured.LinkBytesPerSecond),
	}
}

// crossingOf is the way of activations that change sides, as the worker measured it.
func crossingOf(measured ipc.Measured) planner.Link {
	return planner.Link{
		Latency: planner.Nanoseconds(measured.CrossingLatencyNS),
		Rate:    planner.Bytes(measured.CrossingBytesPerSecond),
	}
}

// least is the smallest of the sizes that are known, 0 where none is.
func least(sizes ...planner.Bytes) planner.Bytes {
	var least planner.Bytes
	for _, size := range sizes {
		if size > 0 && (least == 0 || size < least) {
			least = size
		}
	}
	return least
}
