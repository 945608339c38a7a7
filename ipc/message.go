package ipc

import "time"

// Version is the protocol version. Two ends of different versions do not talk.
const Version = 5

// HelloGrace is how long the controller waits for a hello once a worker has connected, and how long the worker waits for
// the answer. It applies before there is a welcome that could carry it.
const HelloGrace = 10 * time.Second

// HelloFrame caps the body of a worker's frames before its welcome, in bytes.
const HelloFrame = 64 << 10

// Every message is a struct, written as an array in the order of its fields. Sizes are bytes, times are nanoseconds, both
// uint64; 0 stands for an unknown figure. A frame carries [name, message].

// Hello opens a session. Worker to controller.
type Hello struct {
	Protocol uint64
	Python   string
	Torch    string
	Device   Device
}

// Device names a card as torch sees it.
type Device struct {
	Kind       string // torch's device type: cuda, mps, xla, simgpu, cpu
	Index      uint64
	UUID       string
	Name       string
	TotalBytes uint64
	FreeBytes  uint64 // that this process could still take: free on the card, plus reserved by it and not allocated
	Simulated  bool   // its times and its memory are simulated
}

// Welcome accepts a session. Controller to worker.
type Welcome struct {
	Session string
	Terms   Terms
}

// Terms are the constants that both sides go by. The controller sets them; they hold from the welcome on.
type Terms struct {
	PlanningNS    uint64 // how long a worker waits for a plan before it goes on without one
	WritingNS     uint64 // how long a writer waits for a peer that does not read
	FrameBytes    uint64 // largest body that the controller reads
	FrameValues   uint64 // most values in a frame that the controller reads
	TimedForwards uint64 // how many forwards under a plan the worker times step by step
}

// Manifest says what the model is made of. Worker to controller, first as registered, then as recorded.
type Manifest struct {
	Model        string
	Wish         Wish
	Recorded     bool
	WeightsBytes uint64 // without alignment, shared storages counted once
	KeptBytes    uint64 // of weights that are not paged: they stay on the device whole
	BufferBytes  uint64 // of all that stays there beside pages, those weights included
	Calls        uint64 // module calls in one forward
	Steps        uint64 // of one forward
	Units        []Unit // in execution order once recorded
}

// Wish holds the arguments of page or chunk, sizes as text in the user's words.
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

// Measured carries times. Worker to controller, after the manifest and whenever they have changed.
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

// Plan answers a manifest and its times, or replaces an earlier plan. Controller to worker.
type Plan struct {
	Version       uint64
	Answers       uint64 // how many Measured had come when it was made
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
}

// Refused answers a manifest, or a manifest and its times, that no plan can be made from. Controller to worker. The session
// goes on under the last plan; the worker may ask again.
type Refused struct {
	Answers uint64 // as in Plan
	Code    string // one of the Code constants
	Text    string // why, and what to do
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

// Short tells that a forward ran out of device memory. Worker to controller. The worker goes on; when it asks for the next
// plan, that one spares the bytes.
type Short struct {
	RequestedBytes  uint64 // by the allocation that failed
	FreeBytes       uint64 // on the device at that moment
	WeightsBytes    uint64 // that weights held
	ActivationBytes uint64 // that everything else needs at least
}

// Outcome tells the findings of a run that optimemctl drives. Worker to controller.
type Outcome struct {
	Forwards      uint64
	PlainPeriodNS uint64   // of the unpaged model on the same device; 0 where it could not be run
	Equal         string   // equal, different, unknown
	Notes         []string // what the model's own judge says of the output, for people
}

// Shrink asks for device memory back. Controller to worker.
type Shrink struct {
	Bytes    uint64
	WithinNS uint64 // from receipt; the worker says when it was later. 0: as soon as possible
}

// Stop ends a session: the worker finishes its forward and says Bye. Controller to worker.
type Stop struct {
	Reason string
}

// Failure ends a session and says why. Both ways.
type Failure struct {
	Code string // one of the Code constants
	Text string // what went wrong and what to do next
}

// Bye closes a session in good order. Both ways.
type Bye struct {
	Reason string
}

// Codes of a Failure or a Refused.
const (
	CodeBadInput = "bad_input" // the user's input: exit code 2
	CodeProtocol = "protocol"  // the other side broke the protocol
	CodeBusy     = "busy"      // the controller takes no more sessions
	CodeInternal = "internal"  // a fault of ours
)
