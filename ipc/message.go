package ipc

// Version is the protocol version. Two ends that differ in it do not talk.
const Version = 3

// Every message is a struct written as an array, in the order of its fields. Sizes are bytes, times are nanoseconds, both
// uint64; what is not known is 0. A frame carries [name, message].

// Hello opens a session. Worker to controller.
type Hello struct {
	Protocol     uint64
	PID          uint64
	StartTime    uint64 // of the process, in clock ticks since boot: tells a reused pid
	Python       string
	Torch        string
	Device       Device
	Capabilities Capabilities
}

// Device names a card as torch sees it.
type Device struct {
	Kind       string // torch's device type: cuda, mps, xla, simgpu, cpu
	Index      uint64
	UUID       string
	Name       string
	TotalBytes uint64
	FreeBytes  uint64 // what this process could still take: free on the card plus reserved and not allocated
}

// Capabilities tell what the device can do.
type Capabilities struct {
	Streams   bool // streams and events
	Pinned    bool // page-locked host memory
	Async     bool // copies that overlap with compute
	Simulated bool // times and memory are simulated
}

// Welcome accepts a session. Controller to worker.
type Welcome struct {
	Session string
	Measure []string // of "steps", "link", "cpu"
}

// Manifest says what the model is made of. Worker to controller, first as registered, then as recorded.
type Manifest struct {
	Model        string
	Wish         Wish
	Recorded     bool
	WeightsBytes uint64 // without alignment, shared storages counted once
	BufferBytes  uint64
	Calls        uint64 // module calls in one forward
	Steps        uint64 // number of steps in one forward
	Units        []Unit // in execution order once recorded
}

// Wish is what the caller of page or chunk asked for, sizes as text in the user's words.
type Wish struct {
	Mode         string // page, chunk, auto
	VRAM         string // "6GiB", "25%", or empty
	MaxLayerSize uint64 // parameters; 0 leaves the page size to the planner
	MaxCapacity  string // "1000000000" parameters, "2GiB", or empty
}

// Unit is the smallest set of weights that must move together.
type Unit struct {
	Path       string
	Kind       string
	Bytes      uint64 // as laid out on the device
	Parameters uint64
	Readers    []string
	Uses       []Use
}

// Use is an interval of steps, both ends included.
type Use struct {
	First uint64
	Last  uint64
}

// Measured carries times. Worker to controller, after the manifest and whenever they changed.
type Measured struct {
	StepComputeNS      []uint64 // one per step, or empty
	StepCPUNS          []uint64 // one per step, or empty
	StepActivations    []uint64 // device bytes that are not weights, one per step, or empty
	StepCrossings      []uint64 // bytes of tensors that pass the border at which a step begins, one per step, or empty
	LinkLatencyNS      uint64
	LinkBytesPerSecond uint64
	FreeBytes          uint64 // as in Device, now

	CrossingLatencyNS      uint64   // of activations that change sides, the host waiting for them
	CrossingBytesPerSecond uint64   // 0: as over the link
	Held                   []uint64 // units of the latest manifest whose bytes are on the device now, in order
}

// Plan is the planner's answer. Controller to worker.
type Plan struct {
	Version       uint64
	Answers       uint64 // how many Measured had come when it was made
	Mode          string
	Pages         []Page
	Copies        []Copy
	Laps          uint64 // forwards that one turn of the ring takes
	Eviction      []uint64
	ArenaBytes    uint64
	ResidentBytes uint64
	BudgetBytes   uint64
	ReserveBytes  uint64
	PeriodNS      uint64
	BoundNS       uint64
	Bottleneck    string
}

// Page is a run of units that moves as one copy.
type Page struct {
	Units     []uint64
	Bytes     uint64
	Placement string // resident, streamed, cpu, unread
}

// Copy brings a streamed page into the arena for one use; see planner.Copy.
type Copy struct {
	Page   uint64
	Offset uint64
	First  uint64
	Last   uint64
	After  uint64
}

// Report tells how the plan fares. Worker to controller, after forwards.
type Report struct {
	PlanVersion     uint64   // in force
	Forwards        uint64   // done so far
	PeriodNS        uint64   // median of the latest steady forwards; 0 before the first
	StallNS         []uint64 // per page of the plan in force, or empty
	H2DBytes        uint64   // weights moved to the device so far
	Misses          uint64   // pages fetched on touch outside the plan so far
	DeviceBytes     uint64   // allocated now
	DevicePeakBytes uint64   // most allocated at once since attaching
	ActivationBytes uint64   // most at once that were not weights
	PinnedBytes     uint64   // masters in page-locked memory
}

// Outcome says what a run that optimemctl drives has found. Worker to controller.
type Outcome struct {
	Forwards      uint64
	PlainPeriodNS uint64   // the unpaged model on the same device; 0 where it could not be run
	Equal         string   // equal, different, unknown
	Notes         []string // what the model's own judge says of the output, for people
}

// Shrink asks for device memory back. Controller to worker.
type Shrink struct {
	Bytes    uint64
	WithinNS uint64 // from receipt
}

// Stop ends a session: the worker finishes its forward and says Bye. Controller to worker.
type Stop struct {
	Reason string
}

// Failure says what went wrong and what to do next. Both ways.
type Failure struct {
	Code string // see the Code constants
	Text string
}

// Bye closes a session in good order. Both ways.
type Bye struct {
	Reason string
}

// Codes of a Failure.
const (
	CodeBadInput    = "bad_input"     // the user's input: exit code 2
	CodeProtocol    = "protocol"      // the other side broke the protocol
	CodeBusy        = "busy"          // the controller takes no more sessions
	CodeInternal    = "internal"      // a fault of ours
	CodeOutOfMemory = "out_of_memory" // a forward found too little device memory; from a worker, which goes on
)
