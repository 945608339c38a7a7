// Package simgpu gives Go the profiles of the simulated card: what a real card, a link and a host can do.
//
// The figures are the JSON files from which the Python package beside it reads them too, and an operation's time is the one
// that its simulated card needs.
package simgpu

import (
	"embed"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/optimem/optimem/internal/strict"
)

//go:embed src/simgpu/profiles/*.json src/simgpu/links.json src/simgpu/hosts.json
var files embed.FS

const (
	folder      = "src/simgpu"
	largestFile = 1 << 20 // bytes; those built in are a few thousand
)

// The card and the host that are played where nobody names one.
const (
	DefaultCard = "rtx3060"
	DefaultHost = "desktop"
)

// Rates are what a processor reaches.
type Rates struct {
	FLOPS  map[string]float64 // operations per second, by kind of number (fp32, bf16, ...)
	Bytes  float64            // of its memory, per second
	CallNS int64              // what a call costs beside its work
}

// A Card is one model of GPU.
type Card struct {
	Key         string // rtx4090
	Name        string // as NVML calls it
	MemoryBytes int64
	Link        Link
	Rates       Rates
}

// A Host is a processor with its RAM.
type Host struct {
	Key, Name string
	Rates     Rates
}

// A Link is PCIe between both, in bytes per second and one direction.
type Link struct {
	Generation, Width int
	LatencyNS         int64
	Pinned, Pageable  int64
}

// String prints pcie4x16.
func (l Link) String() string { return fmt.Sprintf("pcie%dx%d", l.Generation, l.Width) }

// Time is how long work takes that is bound by computation or by memory, in nanoseconds:
//
//	max(operations / rate, bytes / rate of the memory) + call
//
// Operations are counted by the kind of number that they are done in; a kind that a processor has no unit for is computed in
// a wider one. No time is longer than 2^50 ns.
func (r Rates) Time(operations map[string]float64, bytes float64) int64 {
	var compute float64
	for _, kind := range slices.Sorted(maps.Keys(operations)) { // in order, since sums of floats depend on it
		compute += operations[kind] / r.of(kind)
	}
	return r.CallNS + int64(math.Ceil(min(1e9*max(compute, bytes/r.Bytes), 1<<50)))
}

// instead is what is computed in where there is no unit for a kind of number.
var instead = map[string]string{"tf32": "fp32", "fp8": "fp16", "fp16": "fp32", "bf16": "fp32", "int8": "fp32"}

func (r Rates) of(kind string) float64 {
	for r.FLOPS[kind] == 0 && instead[kind] != "" {
		kind = instead[kind]
	}
	return r.FLOPS[kind]
}

// Cards are the names of the cards that are built in.
func Cards() []string {
	entries, _ := files.ReadDir(folder + "/profiles") // an embedded folder is there
	var names []string
	for _, entry := range entries {
		names = append(names, strings.TrimSuffix(entry.Name(), ".json"))
	}
	slices.Sort(names)
	return names
}

type figures struct {
	Compute float64 `json:"compute"`
	Memory  float64 `json:"memory"`
}

type lanes struct {
	Generation float64 `json:"generation"`
	Width      float64 `json:"width"`
}

type cardFile struct {
	Name        string             `json:"name"`
	Memory      float64            `json:"memory_bytes"`
	MemoryRate  float64            `json:"memory_bytes_per_second"`
	FLOPS       map[string]float64 `json:"flops"`
	Efficiency  figures            `json:"efficiency"`
	Launch      float64            `json:"launch_ns"`
	Link        lanes              `json:"link"`
	Power       float64            `json:"power_limit_mw"`
	Capability  []float64          `json:"compute_capability"`
	SourceTexts map[string]string  `json:"sources"`
}

// LoadCard is the card of a name, or the one that a file describes (its path ends in .json).
func LoadCard(name string) (Card, error) {
	text, err := textOf(name)
	if err != nil {
		return Card{}, err
	}
	var f cardFile
	if err := strict.Read(text, &f); err != nil {
		return Card{}, fmt.Errorf("card %s: %w", name, err)
	}
	link, ok := LinkOf(int(f.Link.Generation), int(f.Link.Width))
	if !ok || f.Link.Generation != math.Trunc(f.Link.Generation) || f.Link.Width != math.Trunc(f.Link.Width) {
		return Card{}, fmt.Errorf("card %s: link: PCIe %v x%v is not known: give generation 3, 4 or 5 and 1, 2, 4, 8 or 16 lanes",
			name, f.Link.Generation, f.Link.Width)
	}
	rates, err := ratesOf(f.FLOPS, f.MemoryRate, f.Efficiency, f.Launch)
	if err == nil {
		err = between("memory_bytes", f.Memory, 1, 1<<50)
	}
	if err != nil {
		return Card{}, fmt.Errorf("card %s: %w", name, err)
	}
	key := strings.TrimSuffix(path.Base(name), ".json")
	return Card{Key: key, Name: f.Name, MemoryBytes: int64(f.Memory), Link: link, Rates: rates}, nil
}

// textOf is a profile's text.
func textOf(name string) ([]byte, error) {
	if !strings.HasSuffix(name, ".json") {
		if !slices.Contains(Cards(), name) {
			return nil, fmt.Errorf("there is no card %q: known are %s, or give the path of a .json file", name, strings.Join(Cards(), ", "))
		}
		return files.ReadFile(folder + "/profiles/" + name + ".json")
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, largestFile+1))
	if err == nil && len(text) > largestFile {
		err = fmt.Errorf("%s has more than %d bytes: a profile is a small JSON file", name, largestFile)
	}
	return text, err
}

func ratesOf(flops map[string]float64, memory float64, part figures, call float64) (Rates, error) {
	r := Rates{FLOPS: map[string]float64{}, Bytes: memory * part.Memory, CallNS: int64(call)}
	for _, check := range []error{
		between("memory_bytes_per_second", memory, 1, 1e15), between("launch_ns", call, 0, 1e9),
		between("efficiency.compute", part.Compute, 1e-6, 1), between("efficiency.memory", part.Memory, 1e-6, 1),
		between("flops.fp32", flops["fp32"], 1, 1e19), between("flops.fp64", flops["fp64"], 1, 1e19),
	} {
		if check != nil {
			return r, check
		}
	}
	for kind, n := range flops {
		if err := between("flops."+kind, n, 1, 1e19); err != nil {
			return r, err
		}
		r.FLOPS[kind] = n * part.Compute
	}
	return r, nil
}

func between(field string, value, least, most float64) error {
	if value >= least && value <= most {
		return nil
	}
	return strict.Fault(field, "%v is out of range: give %v to %v", value, least, most)
}

type hostFile struct {
	Name        string             `json:"name"`
	FLOPS       map[string]float64 `json:"flops"`
	MemoryRate  float64            `json:"memory_bytes_per_second"`
	Efficiency  figures            `json:"efficiency"`
	Operation   float64            `json:"operation_ns"`
	Copy        float64            `json:"copy_ns"`
	Event       float64            `json:"event_ns"`
	View        float64            `json:"view_ns"`
	Driver      float64            `json:"driver_ns"`
	SourceTexts map[string]string  `json:"sources"`
}

// LoadHost is the host of a name.
func LoadHost(name string) (Host, error) {
	text, err := files.ReadFile(folder + "/hosts.json")
	if err != nil {
		return Host{}, err
	}
	var hosts struct {
		Desktop hostFile `json:"desktop"`
		Server  hostFile `json:"server"`
	}
	if err := strict.Read(text, &hosts); err != nil {
		return Host{}, fmt.Errorf("hosts.json: %w", err)
	}
	f, ok := map[string]hostFile{"desktop": hosts.Desktop, "server": hosts.Server}[name]
	if !ok {
		return Host{}, fmt.Errorf("there is no host %q: known are desktop and server", name)
	}
	rates, err := ratesOf(f.FLOPS, f.MemoryRate, f.Efficiency, f.Operation)
	return Host{Key: name, Name: f.Name, Rates: rates}, err
}

// LinkOf is what a PCIe link reaches, as measured; false where the generation or the width was never measured.
func LinkOf(generation, width int) (Link, bool) {
	text, err := files.ReadFile(folder + "/links.json")
	if err != nil {
		return Link{}, false
	}
	var f struct {
		PerLane     map[string]float64 `json:"per_lane"`
		Latency     float64            `json:"latency_ns"`
		Pageable    float64            `json:"pageable_bytes_per_second"`
		SourceTexts map[string]string  `json:"sources"`
	}
	if err := strict.Read(text, &f); err != nil || !slices.Contains([]int{1, 2, 4, 8, 16}, width) {
		return Link{}, false
	}
	perLane, known := f.PerLane[strconv.Itoa(generation)]
	return Link{
		Generation: generation, Width: width, LatencyNS: int64(f.Latency),
		Pinned: int64(perLane) * int64(width), Pageable: int64(f.Pageable),
	}, known
}
