//go:build !linux || !cgo

package probe

import (
	"context"
	"fmt"
	"runtime"
)

// NVML reads the cards through an NVML library, which this build cannot do: it sees no card, and a library asked for by
// name is an error.
func NVML(library string) CardReader { return noNVML{library} }

type noNVML struct{ library string }

func (n noNVML) ReadCards(ctx context.Context) ([]Card, Notes, error) {
	if n.library != "" {
		return nil, nil, fmt.Errorf("load NVML from %q: %w: this build has no NVML; build for Linux with CGO_ENABLED=1", n.library, ErrLibrary)
	}
	return []Card{}, Notes{fmt.Sprintf("This build for %s has no NVML and so sees no NVIDIA card.", runtime.GOOS)}, ctx.Err()
}

// Hold keeps NVML initialised between readings, which this build has no need to do.
func Hold(ctx context.Context, _ Options) (release func() error, err error) {
	return func() error { return nil }, ctx.Err()
}
