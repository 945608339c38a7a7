// Package report draws a plan and what a run under it measured as one HTML page that needs nothing else: no network, no
// other file.
package report
