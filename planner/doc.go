// Package planner decides where the weights of a model live during inference.
//
// It is pure: the same manifest, machine and options give the same plan, on every machine and in every run. It knows no
// clock, file, device, environment or goroutine, and imports nothing of ours. Sizes are Bytes, times Nanoseconds, both
// signed integers.
package planner
