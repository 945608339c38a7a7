package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// longestSocket is what fits into the address of a Unix socket on every system that we build for, with a byte to spare.
const longestSocket = 102

// A runtimeDir is a private folder that lives as long as a run and holds its socket.
type runtimeDir struct{ path string }

// makeRuntimeDir makes one in the first of the folders where it can be made and the socket's path is short enough.
func makeRuntimeDir(bases ...string) (runtimeDir, error) {
	var last error
	for _, base := range bases {
		if base == "" {
			continue
		}
		path, err := os.MkdirTemp(base, "optimem-") // 0700
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

func (d runtimeDir) socket() string { return filepath.Join(d.path, "s") }

func (d runtimeDir) remove() error { return os.RemoveAll(d.path) }
