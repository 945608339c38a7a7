// Package floorplan says which package may import which, and is a test of it.
package floorplan

// Module is the path of this module.
const Module = "github.com/optimem/optimem"

// May lists for every package of ours which others it may import. A package that is not listed may import all: those under
// cmd, tests and internal.
var May = map[string][]string{
	"planner":                   {},
	"planner/probe":             {"planner"},
	"planner/contract":          {"planner", "internal/strict", "internal/label"},
	"ipc":                       {"planner"},
	"controller":                {"planner", "planner/probe", "ipc"},
	"controller/controllertest": {"planner", "planner/probe", "ipc", "controller"},
	"bindings":                  {"planner", "planner/contract", "planner/probe", "ipc"},
	"simgpu":                    {"internal/strict"},
	"internal/strict":           {},
	"internal/label":            {"planner"},
	"internal/safetensors":      {"internal/strict"},
	"internal/checkpoint":       {"planner", "planner/contract", "internal/safetensors", "simgpu"},
}

// Impure lists what the planner may not touch: the same inputs give the same plan, on every machine and in every run.
var Impure = []string{"os", "os/exec", "time", "net", "io/fs", "sync", "context", "runtime", "math/rand", "math/rand/v2", "syscall", "unsafe", "log", "log/slog"}
