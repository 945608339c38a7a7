//go:build linux || darwin

package probe

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func readMemlock() (Limit, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); err != nil {
		return Limit{}, fmt.Errorf("getrlimit(RLIMIT_MEMLOCK): %w", err)
	}
	return limitOf(r.Cur), nil
}
