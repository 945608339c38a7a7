package planner

// A Point is the period and the bound that a budget gives.
type Point struct {
	Budget  Bytes
	Period  Nanoseconds // 0 where the budget is too small
	Bound   Nanoseconds
	Missing Bytes // bytes that the budget lacks; 0 where it is large enough
}
