package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/optimem/optimem/ipc"
)

// longestSocket is what fits into the address of a Unix socket on every system that we build for, with a byte to spare.
const longestSocket = 102

// runtimePrefix begins the names of our private folders, and of nothing else.
const runtimePrefix = "optimem-run-"

// tidyAge is how old a folder is before it counts as left behind: a young one's controller may not listen yet.
const tidyAge = time.Minute

// A runtimeDir is a private folder that lives as long as a controller and holds its socket.
type runtimeDir struct{ path string }

// privateDir makes a folder where those of this user lie.
func privateDir() (runtimeDir, error) {
	return makeRuntimeDir(os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp")
}

// makeRuntimeDir makes one in the first of the folders where it can be made and the socket's path is short enough. It removes
// those that controllers which were killed have left there.
func makeRuntimeDir(bases ...string) (runtimeDir, error) {
	var last error
	for _, base := range bases {
		if base == "" {
			continue
		}
		tidy(base)
		path, err := os.MkdirTemp(base, runtimePrefix) // 0700
		if err != nil {
			last = err
			continue
		}
		if d := (runtimeDir{path}); len(d.socket()) <= longestSocket {
			return d, nil
		}
		last = fmt.Errorf("%s is too long for the path of a socket", base)
		_ = os.Remove(path)
	}
	return runtimeDir{}, fmt.Errorf("make a folder for the socket: %w", last)
}

// tidy removes the folders in base in which nobody listens any more. What others have put into one stays, and so do folders of
// other users.
func tidy(base string) {
	folders, _ := filepath.Glob(filepath.Join(base, runtimePrefix+"*")) // the pattern is good
	for _, folder := range folders {
		info, err := os.Lstat(folder)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < tidyAge {
			continue
		}
		if ipc.Clear(runtimeDir{folder}.socket()) == nil {
			_ = os.Remove(folder)
		}
	}
}

func (d runtimeDir) socket() string { return filepath.Join(d.path, "s") }

func (d runtimeDir) remove() error { return os.RemoveAll(d.path) }
