package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// A pythonSearch looks for the interpreter of the worker.
type pythonSearch struct {
	flag   string                            // --python
	getenv func(string) string               // the environment
	binary string                            // path of this program, may be empty
	look   func(file string) (string, error) // exec.LookPath
}

// find returns the first interpreter there is. One that the user named must be there; the rest are only tried.
func (p pythonSearch) find() (string, error) {
	if p.flag != "" {
		return p.named("--python", p.flag)
	}
	if named := p.getenv("OPTIMEM_PYTHON"); named != "" {
		return p.named("OPTIMEM_PYTHON", named)
	}
	tried := p.places()
	for _, place := range tried {
		if found, err := p.look(place); err == nil {
			return absolute(found), nil
		}
	}
	return "", fmt.Errorf("no Python found; tried %s: name one with --python or OPTIMEM_PYTHON", strings.Join(tried, ", "))
}

func (p pythonSearch) named(by, path string) (string, error) {
	found, err := p.look(path)
	if err != nil {
		return "", fmt.Errorf("%s: no Python at %q: %w", by, path, err)
	}
	return absolute(found), nil
}

// places are the usual ones: the active environment, the one beside a checkout's bin, the one of a wheel, the system's.
func (p pythonSearch) places() (places []string) {
	if environment := p.getenv("VIRTUAL_ENV"); environment != "" {
		places = append(places, filepath.Join(environment, "bin", "python"))
	}
	if p.binary != "" {
		folder := filepath.Dir(p.binary)
		places = append(places, filepath.Join(folder, "..", ".venv", "bin", "python"), filepath.Join(folder, "python"))
	}
	return append(places, "python3")
}

// absolute keeps a path good where the worker's working directory is another one. Links stay: an environment's python is one.
func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}
