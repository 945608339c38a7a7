//go:build !linux && !darwin

package probe

import (
	"errors"
	"fmt"
	"runtime"
)

func readMemlock() (Limit, error) {
	return Limit{}, fmt.Errorf("getrlimit(RLIMIT_MEMLOCK) on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
