package planner

// A Point is what a budget gives.
type Point struct {
	Budget  Bytes
	Period  Nanoseconds // 0 where the budget is too small
	Bound   Nanoseconds
	Missing Bytes // how many bytes the budget is short of the least that works; 0 where it works
}
