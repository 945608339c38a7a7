// Package contract is the planner in JSON: manifests, machines and requests in, answers out, as docs/contract.md has them.
//
// It is text in, text out: it opens no file and knows no clock. Optional fields may be left out.
// An unknown or doubled field, a fraction, or a number out of range is an error that names the field. The same request gives the
// same bytes.
package contract

import "github.com/optimem/optimem/internal/strict"

// Version is the version of all documents that this package reads and writes.
const Version = 1

// Limits of a document.
const (
	largest    = strict.Largest // bytes and nanoseconds, as the planner takes them
	mostSteps  = 1 << 20
	mostPoints = 256 // budgets of a curve
)
