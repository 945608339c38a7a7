//go:build linux && cgo

package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

const driversLibrary = "libnvidia-ml.so.1"

// An absence is a machine without an NVIDIA driver.
type absence struct{ cause error }

func (a *absence) Error() string { return "no NVIDIA driver: " + a.cause.Error() }
func (a *absence) Unwrap() error { return a.cause }
func (a *absence) note() string {
	return fmt.Sprintf("This machine shows no NVIDIA card: its driver is not there (%v).", a.cause)
}

// A door lets one caller at a time use the library of this process. go-nvml swaps global functions when it loads and
// closes a library; and since the linker ties NVML's functions once in a process's life, a second library would be loaded
// but never called.
type door struct {
	turn turn
	lib  *library // guarded by turn; nil until a good library was loaded, then the same for ever
}

var nvmlDoor = door{turn: newTurn()}

// with calls use with the library of that name, empty for the driver's own, while no one else uses it.
func (d *door) with(ctx context.Context, name string, use func(*library) error) error {
	if err := d.turn.take(ctx); err != nil {
		return err
	}
	defer d.turn.give()
	if d.lib == nil {
		l, err := load(name)
		if err != nil {
			return err
		}
		d.lib = l
	}
	if d.lib.name != name {
		return fmt.Errorf("load NVML from %s: %w: this process already uses %s, and one process can use but one; start another process for it",
			display(name), ErrLibrary, display(d.lib.name))
	}
	return use(d.lib)
}

// A library is a loaded NVML. It stays mapped to the end of the process: the functions that the linker tied to it do too.
type library struct {
	name    string // as asked for, empty for the driver's own
	api     nvml.Interface
	symbols interface{ Lookup(symbol string) error }
}

// load opens a library and sees that it is NVML before a function of it is called: one that is missing ends the process.
func load(name string) (*library, error) {
	if strings.ContainsRune(name, 0) {
		return nil, fmt.Errorf("load NVML from %q: %w: a file's name holds no zero byte", name, ErrLibrary)
	}
	file := fileOf(name)
	symbols := dl.New(file, dl.RTLD_LAZY|dl.RTLD_LOCAL)
	if err := symbols.Open(); err != nil {
		return nil, notLoaded(name, err)
	}
	l := &library{name: name, api: nvml.New(nvml.WithLibraryPath(file)), symbols: symbols}
	if missing := l.missing(); missing != "" {
		return nil, errors.Join(fmt.Errorf("load NVML from %s: %w: it is not NVML, for it has no function %s",
			display(name), ErrLibrary, missing), symbols.Close())
	}
	return l, nil
}

// notLoaded is an answer for the driver's own library and an error for a named one.
func notLoaded(name string, cause error) error {
	if name == "" {
		return &absence{cause}
	}
	return fmt.Errorf("load NVML from %s: %w: %w; name a file by a path with a slash", display(name), ErrLibrary, cause)
}

func fileOf(name string) string {
	if name == "" {
		return driversLibrary
	}
	return name
}

func display(name string) string {
	if name == "" {
		return driversLibrary + " (the driver's own)"
	}
	return fmt.Sprintf("%q", name)
}

// required are the functions without which nothing can be read; of several names, go-nvml calls the first that is there.
var required = [][]string{
	{"nvmlInit_v2", "nvmlInit"},
	{"nvmlShutdown"},
	{"nvmlErrorString"},
	{"nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"},
	{"nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex"},
}

// missing is the first required function that the library lacks.
func (l *library) missing() string {
	for _, names := range required {
		if !l.has(names...) {
			return names[0]
		}
	}
	return ""
}

// has says whether the library has a function under one of its names.
func (l *library) has(names ...string) bool {
	for _, name := range names {
		if l.symbols.Lookup(name) == nil {
			return true
		}
	}
	return false
}

// init starts NVML, which counts: each good init wants one shutdown.
func (l *library) init() error {
	r := l.api.Init()
	err := fault("nvmlInit", r)
	if l.name == "" && (r == nvml.ERROR_DRIVER_NOT_LOADED || r == nvml.ERROR_LIBRARY_NOT_FOUND) {
		return &absence{err}
	}
	return err
}

func (l *library) shutdown() error { return fault("nvmlShutdown", l.api.Shutdown()) }

// fault is the one place where NVML's codes become errors; nvml.SUCCESS, which is an error value and not nil, becomes nil.
func fault(call string, r nvml.Return) error {
	if r == nvml.SUCCESS {
		return nil
	}
	return &Fault{Call: call, Code: int(r), Reason: r.Error(), Advice: advice(r)}
}

func advice(r nvml.Return) string {
	switch r {
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND, nvml.ERROR_ARGUMENT_VERSION_MISMATCH, nvml.ERROR_DEPRECATED:
		return ""
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return "load the NVIDIA driver, then run nvidia-smi to see that it answers"
	case nvml.ERROR_NO_PERMISSION, nvml.ERROR_OPERATING_SYSTEM:
		return "run as a user, or in a container, that may open /dev/nvidiactl and /dev/nvidia0"
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return "the driver was updated while in use: restart the machine"
	case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED, nvml.ERROR_IRQ_ISSUE:
		return "reset the card (nvidia-smi --gpu-reset) or restart the machine"
	}
	return "run nvidia-smi to see what the driver says"
}

// lacks says whether a code means that there is nothing to read, rather than that reading went wrong.
func lacks(r nvml.Return) bool {
	switch r {
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND, nvml.ERROR_NO_PERMISSION,
		nvml.ERROR_ARGUMENT_VERSION_MISMATCH, nvml.ERROR_DEPRECATED:
		return true
	}
	return false
}
