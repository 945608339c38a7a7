// Package search finds a good plan for a model: Build finds one for a budget, Curve for several.
//
// It is as pure as package planner, which is all that it imports of ours: the same manifest, machine and options give the
// same plan, on every machine and in every run.
package search
