package probe

import (
	"errors"
	"fmt"
)

// ErrLibrary says that an NVML library that was asked for by name cannot be used.
var ErrLibrary = errors.New("this NVML library cannot be used")

// A Fault is a call of NVML that did not work.
type Fault struct {
	Call   string // the function's name in C
	Code   int    // nvmlReturn_t
	Reason string // the library's own words for the code
	Advice string // what to do next
}

func (f *Fault) Error() string {
	text := fmt.Sprintf("%s: %s (NVML code %d)", f.Call, f.Reason, f.Code)
	if f.Advice != "" {
		text += "; " + f.Advice
	}
	return text
}
