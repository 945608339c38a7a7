// Package planner holds the values of planning and the laws they keep: what a model, a machine and a plan are, whether they
// contradict themselves (Check), how long a forward takes under a plan (Evaluate), and how long it takes at least under any
// plan (Bound). Package planner/search finds plans.
//
// It is pure: the same inputs give the same result, on every machine and in every run. It knows no clock, file, device,
// environment or goroutine, and imports nothing of ours. Sizes are Bytes, times Nanoseconds, both signed integers.
package planner
