package planner

// A Machine is what the planner needs to know of the card and of the way to it.
type Machine struct {
	Free Bytes // device bytes that this worker may take in all: free on the card plus what it holds and can reuse
	Link Link
	Host Host

	Crossing Link // of activations between the sides, for which the host waits; without a rate as Host says
}

// A Host is what the planner needs to know of the memory beside the device. Zero figures are not known.
type Host struct {
	Rate      Bytes // bytes per second that the CPU and copies together can read from RAM
	CrossRate Bytes // bytes per second of activations between pageable RAM and the device, each crossing with the link's latency; 0: the link's
}

// CrossingTime is the time in ns that size bytes of activations take from one side to the other: at the rate and latency of
// Crossing, else with those of the link, at the CrossRate of the host where that is known.
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
