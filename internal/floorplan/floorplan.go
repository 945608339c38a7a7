// Package floorplan says which package may import which, and is a test of it.
package floorplan

// Module is the path of this module.
const Module = "github.com/optimem/optimem"

// May lists for every package of ours which others it may import. A package that is not listed may import all: those under
// cmd, tests and internal.
var May = map[string][]string{
	"planner":                   {},
	"planner/search":            {"planner"},
	"planner/probe":             {"planner"},
	"planner/contract":          {"planner", "planner/search", "internal/strict", "internal/label"},
	"ipc":                       {"planner"},
	"controller":                {"planner", "planner/search", "planner/probe", "ipc"},
	"controller/controllertest": {"planner", "planner/probe", "ipc", "controller"},
	"bindings":                  {"planner", "planner/contract", "planner/probe", "ipc"},
	"simgpu":                    {"internal/strict"},
	"internal/strict":           {},
	"internal/label":            {"planner"},
	"internal/safetensors":      {"internal/strict"},
	"internal/checkpoint":       {"planner", "planner/contract", "internal/safetensors", "simgpu"},
}

// Pure lists the packages that may import nothing of Impure: the same inputs give the same plan in every run.
var Pure = []string{"planner", "planner/search"}

// Impure lists what a pure package may not import.
var Impure = []string{"os", "os/exec", "time", "net", "io/fs", "sync", "context", "runtime", "math/rand", "math/rand/v2", "syscall", "unsafe", "log", "log/slog"}
