package probe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/optimem/optimem/planner"
)

// A Cgroup is how much memory the control groups of this process leave it. Its zero value is a machine without any.
//
// The headroom of one group is its limit (memory.max or memory.high, the lower one) minus what it uses, where file pages
// without recent access do not count as used, since the kernel takes them back first. A group's limit holds for all
// below it, so the headroom of a process is the smallest one from its own group up to the root.
type Cgroup struct {
	Version  int    `json:"version"`  // 1 or 2; 0 where there are none
	Path     string `json:"path"`     // of this process's group
	Tightest string `json:"tightest"` // path of the group that sets the headroom; empty where none does
	Headroom Limit  `json:"headroom"`
}

// A hierarchy is where a version of cgroups keeps its numbers.
type hierarchy struct {
	version  int
	mount    string
	limits   []string
	usage    string
	inactive string // key in memory.stat
}

var (
	hierarchy1 = hierarchy{1, "sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_inactive_file"}
	hierarchy2 = hierarchy{2, "sys/fs/cgroup", []string{"memory.max", "memory.high"}, "memory.current", "inactive_file"}
)

const (
	membership   = "proc/self/cgroup"
	longestFile  = 1 << 20 // bytes; the kernel writes a few thousand
	longestGroup = 4096    // bytes of a path, as PATH_MAX
)

// readCgroup reads the headroom of this process. An error names the file.
func readCgroup(root fs.FS) (Cgroup, error) {
	text, err := readText(root, membership)
	if errors.Is(err, fs.ErrNotExist) {
		return Cgroup{}, nil
	}
	if err != nil {
		return Cgroup{}, err
	}
	h, group, err := findMemory(text)
	if err != nil {
		return Cgroup{}, fmt.Errorf("/%s: %w", membership, err)
	}
	if h.version == 0 {
		return Cgroup{}, nil
	}
	return h.read(root, group)
}

// findMemory finds the hierarchy that limits memory, and the group of this process in it. A line is ID:controllers:path;
// version 2 is the line "0::path", and rules only where version 1 has not taken the memory controller.
func findMemory(text string) (h hierarchy, group string, err error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") || len(fields[2]) > longestGroup {
			return hierarchy{}, "", fmt.Errorf("line %d is not ID:controllers:/path: %.80q", n, line)
		}
		switch {
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			return hierarchy1, fields[2], nil
		case fields[0] == "0" && fields[1] == "":
			h, group = hierarchy2, fields[2]
		}
	}
	return h, group, nil
}

// read walks from the group up to the root. A group that is not there is passed over: a container often sees its own
// group as the root and does not see the ones that its path names.
func (h hierarchy) read(root fs.FS, group string) (Cgroup, error) {
	if group == "/.." || strings.HasPrefix(group, "/../") {
		return Cgroup{}, fmt.Errorf("/%s: the group %.80q lies outside the tree that this process sees", membership, group)
	}
	c := Cgroup{Version: h.version, Path: path.Clean(group)}
	for level := c.Path; ; level = path.Dir(level) {
		room, err := h.headroom(root, path.Join(h.mount, level))
		if err != nil {
			return Cgroup{}, err
		}
		if c.Headroom.tighter(room) != c.Headroom {
			c.Headroom, c.Tightest = room, level
		}
		if level == "/" {
			return c, nil
		}
	}
}

// headroom is how many bytes one group leaves.
func (h hierarchy) headroom(root fs.FS, dir string) (Limit, error) {
	limit, err := h.limit(root, dir)
	if err != nil || !limit.Limited {
		return Limit{}, err
	}
	used, err := readSize(root, path.Join(dir, h.usage))
	if err != nil {
		return Limit{}, err
	}
	inactive, err := readStat(root, path.Join(dir, "memory.stat"), h.inactive)
	if err != nil {
		return Limit{}, err
	}
	return Limit{Limited: true, Bytes: max(0, limit.Bytes-max(0, used-inactive))}, nil
}

func (h hierarchy) limit(root fs.FS, dir string) (lowest Limit, err error) {
	for _, name := range h.limits {
		l, err := readLimit(root, path.Join(dir, name))
		if err != nil {
			return Limit{}, err
		}
		lowest = lowest.tighter(l)
	}
	return lowest, nil
}

// readLimit reads a number or "max"; a file that is not there limits nothing.
func readLimit(root fs.FS, name string) (Limit, error) {
	text, err := readText(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return Limit{}, nil
	}
	if err != nil || strings.TrimSpace(text) == "max" {
		return Limit{}, err
	}
	n, err := parseSize(name, text)
	return limitOf(uint64(n)), err
}

func readSize(root fs.FS, name string) (planner.Bytes, error) {
	text, err := readText(root, name)
	if err != nil {
		return 0, err
	}
	return parseSize(name, text)
}

// readStat reads one line of a file of "key value" lines; 0 where file or key is missing.
func readStat(root fs.FS, name, key string) (planner.Bytes, error) {
	text, err := readText(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, key+" "); ok {
			return parseSize(name, value)
		}
	}
	return 0, nil
}

// parseSize reads a number of bytes, 0 or more. Numbers above the largest int64 become the largest int64.
func parseSize(name, text string) (planner.Bytes, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/%s: %.80q is not a number of bytes: %w", name, text, errors.Unwrap(err))
	}
	return signed(n), nil
}

// readText reads a small file.
func readText(root fs.FS, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", fmt.Errorf("/%s: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, longestFile+1))
	if err != nil {
		return "", fmt.Errorf("/%s: %w", name, err)
	}
	if len(text) > longestFile {
		return "", fmt.Errorf("/%s: is longer than %d bytes; a cgroup file never is", name, longestFile)
	}
	return string(text), nil
}
