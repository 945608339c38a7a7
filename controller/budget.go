package controller

import (
	"fmt"
	"time"

	"github.com/optimem/optimem/planner"
)

// A budget bounds the device bytes that a session takes, weights and everything else together; 0 is no bound. It may be set
// up or down at any time: up leads to a new plan, down to giving bytes back.
type budget planner.Bytes

// newBudget checks what somebody asks for.
func newBudget(size planner.Bytes, within time.Duration) (budget, error) {
	if size < 0 || within < 0 {
		return 0, fmt.Errorf("%d bytes within %v make no sense: give 0 or more", int64(size), within)
	}
	return budget(size), nil
}

// of is the budget's share of what is free: all of it, or as much as the bound allows; 0 where neither is known.
func (b budget) of(free planner.Bytes) planner.Bytes { return least(free, planner.Bytes(b)) }

// owed is how many bytes a plan takes above the budget.
func (b budget) owed(inForce planner.Plan) planner.Bytes {
	if b == 0 {
		return 0
	}
	return max(0, taken(inForce)-planner.Bytes(b))
}

// taken is how many device bytes a plan takes in all.
func taken(p planner.Plan) planner.Bytes { return p.Budget + p.Reserve }
