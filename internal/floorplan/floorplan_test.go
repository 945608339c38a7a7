package floorplan

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// listed is what `go list` says of a package.
type listed struct {
	ImportPath string
	Imports    []string
}

// packages are all of ours, for one system.
func packages(t *testing.T, system string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", Module+"/...")
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// violations names what a package imports that it may not.
func violations(p listed) (found []string) {
	name := strings.TrimPrefix(p.ImportPath, Module+"/")
	may, ruled := May[name]
	for _, path := range p.Imports {
		ours, isOurs := strings.CutPrefix(path, Module+"/")
		switch {
		case ruled && isOurs && !slices.Contains(may, ours):
			found = append(found, name+" imports "+ours)
		case name == "planner" && slices.Contains(Impure, path):
			found = append(found, "planner imports "+path)
		}
	}
	return found
}

func TestEveryPackageKeepsToItsFloor(t *testing.T) {
	for _, system := range []string{"linux", "darwin"} {
		all := packages(t, system)
		if len(all) < 5 {
			t.Fatalf("only %d packages were found", len(all))
		}
		for _, p := range all {
			for _, violation := range violations(p) {
				t.Errorf("%s: %s", system, violation)
			}
		}
	}
}

func TestAViolationIsFound(t *testing.T) {
	wrong := []listed{
		{Module + "/planner", []string{"time"}},
		{Module + "/planner", []string{Module + "/ipc"}},
		{Module + "/ipc", []string{Module + "/controller"}},
	}
	for _, p := range wrong {
		if len(violations(p)) != 1 {
			t.Errorf("%v passed", p)
		}
	}
}
