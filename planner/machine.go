package planner

// A Machine is the card, the way to it, and the memory beside it.
type Machine struct {
	Free Bytes // device bytes that this worker may take in all: free on the card plus what it holds and can reuse
	Link Link
	Host Host

	Crossing Link // for activations between RAM and the device, for which the host waits; without a rate see CrossingTime
}

// A Host is the memory beside the device. A figure of 0 is not known.
type Host struct {
	Rate      Bytes // bytes per second that the CPU and copies together can read from RAM
	CrossRate Bytes // bytes per second of activations between pageable RAM and the device; a crossing has the latency of the link
}

// CrossingTime is the time in ns in which size bytes of activations cross from one side to the other. It follows Crossing where
// its rate is known, else the link, at the CrossRate of the host where that is known.
func (machine Machine) CrossingTime(size Bytes) Nanoseconds {
	if machine.Crossing.Rate > 0 {
		return machine.Crossing.Transfer(size)
	}
	link := machine.Link.OrUsual()
	if machine.Host.CrossRate > 0 {
		link.Rate = machine.Host.CrossRate
	}
	return link.Transfer(size)
}
