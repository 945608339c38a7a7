package planner

// A Plan is the immutable answer to a manifest.
type Plan struct {
	Version    int // grows by one with every plan of a session; 0 is the plan of the recording forward
	Mode       Mode
	Pages      []Page      // in execution order, unread pages last
	Copies     []Copy      // one turn of the ring, in the order in which they are issued
	Laps       int         // forwards that one turn of the ring takes, each with the same copies at other offsets; 0 is 1
	Eviction   []int       // resident pages, the first to evict first
	Fill       [][]int     // groups of resident pages that go as one copy in the first forward, in order
	Arena      Bytes       // size of the ring
	Resident   Bytes       // bytes of all resident pages
	Budget     Bytes       // device bytes that the plan may use for weights: Resident + Arena <= Budget
	Reserve    Bytes       // device bytes left to activations and others
	Period     Nanoseconds // between the starts of two forwards, back to back
	First      Nanoseconds // of the first forward, in which all weights are copied once
	Bound      Nanoseconds // no policy within Budget has a shorter period
	Bottleneck Bottleneck
}

// Gap is how far the period lies above the bound, as a share of the bound: 0.02 is 2 %. It is 0 where there is no bound.
func (p Plan) Gap() float64 {
	if p.Bound <= 0 {
		return 0
	}
	return float64(p.Period-p.Bound) / float64(p.Bound)
}

// MostLaps is the most laps that one turn of a ring may take.
const MostLaps = 2

// Turn is how many laps one turn of the ring takes, at least 1.
func (p Plan) Turn() int { return max(1, p.Laps) }

// A Page is a run of units that moves as one copy.
type Page struct {
	Units     []int // indexes into Manifest.Units, in the order in which they lie in the page
	Bytes     Bytes
	Placement Placement
}

// A Copy brings a streamed page into the arena for one use.
//
// It waits until the copy After places earlier in the ring, and all before that one, have been released. The ring is cyclic, and
// 1 <= After <= copies of one lap.
type Copy struct {
	Page        int
	Offset      Bytes // in the arena, the same in every turn
	First, Last int   // the steps that hold it
	After       int
}
