package probe

import "github.com/optimem/optimem/planner"

// A Limit is an upper bound on an amount of memory. Its zero value is no limit.
type Limit struct {
	Limited bool          `json:"limited"`
	Bytes   planner.Bytes `json:"bytes"` // 0 where not limited
}

// unlimitedFrom is where numbers mean "no limit": RLIM_INFINITY and the largest of cgroup v1, which is the largest int64
// rounded down to a page, lie above it, and no memory does.
const unlimitedFrom = 1 << 62

// limitOf is the limit that a system call or a file states as n.
func limitOf(n uint64) Limit {
	if n >= unlimitedFrom {
		return Limit{}
	}
	return Limit{Limited: true, Bytes: signed(n)}
}

// Of is b, or the limit where b is above it.
func (l Limit) Of(b planner.Bytes) planner.Bytes {
	if l.Limited {
		return min(b, l.Bytes)
	}
	return b
}

// String is the size, or "unlimited".
func (l Limit) String() string {
	if l.Limited {
		return l.Bytes.String()
	}
	return "unlimited"
}

// tighter is the lower one of two limits.
func (l Limit) tighter(other Limit) Limit {
	if !l.Limited || other.Limited && other.Bytes < l.Bytes {
		return other
	}
	return l
}
