package planner

// A Bottleneck is the engine that sets the period.
type Bottleneck string

// The bottlenecks.
const (
	BoundByCompute Bottleneck = "compute" // the device computes without waiting
	BoundByLink    Bottleneck = "link"    // copies take longer than the computation
	BoundByMemory  Bottleneck = "memory"  // no engine is always busy: more device memory would shorten the period
	BoundByCPU     Bottleneck = "cpu"     // computation on the CPU takes most of the time
	BoundUnknown   Bottleneck = "unknown" // times are not measured yet
)
