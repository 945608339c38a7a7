package floorplan

import (
	"errors"
	"go/build"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A listed is a package and what it imports, tests apart.
type listed struct {
	ImportPath string
	Imports    []string
}

// packages are all of ours, for one system. It reads the sources in this process, so that the cache of go test sees when one
// of them changes.
func packages(t *testing.T, system string) (all []listed) {
	t.Helper()
	context := build.Default
	context.GOOS, context.CgoEnabled = system, false
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil || !entry.IsDir():
			return err
		case path != root && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")):
			return fs.SkipDir
		}
		p, err := context.ImportDir(path, 0)
		var none *build.NoGoError
		if errors.As(err, &none) {
			return nil
		}
		all = append(all, listed{Module + "/" + filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator))), p.Imports})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
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
		case slices.Contains(Pure, name) && slices.Contains(Impure, path):
			found = append(found, name+" imports "+path)
		}
	}
	return found
}

func TestEveryPackageKeepsToItsFloor(t *testing.T) {
	for _, system := range []string{"linux", "darwin"} {
		all := packages(t, system)
		for _, p := range all {
			for _, violation := range violations(p) {
				t.Errorf("%s: %s", system, violation)
			}
		}
	}
}

func TestAForbiddenImportIsFound(t *testing.T) {
	for _, test := range []struct {
		from, imports string
		found         []string // nil where the import is allowed
	}{
		{"planner", "planner/search", []string{"planner imports planner/search"}},
		{"planner", "planner/contract", []string{"planner imports planner/contract"}},
		{"planner", "ipc", []string{"planner imports ipc"}},
		{"planner", "time", []string{"planner imports time"}},
		{"planner", "slices", nil},
		{"planner/search", "planner", nil},
		{"planner/search", "planner/contract", []string{"planner/search imports planner/contract"}},
		{"planner/search", "planner/probe", []string{"planner/search imports planner/probe"}},
		{"planner/search", "controller", []string{"planner/search imports controller"}},
		{"planner/search", "math/rand/v2", []string{"planner/search imports math/rand/v2"}},
		{"planner/search", "os", []string{"planner/search imports os"}},
		{"planner/probe", "planner/search", []string{"planner/probe imports planner/search"}},
		{"planner/probe", "os", nil},
		{"planner/contract", "planner/search", nil},
		{"ipc", "planner/search", []string{"ipc imports planner/search"}},
		{"ipc", "controller", []string{"ipc imports controller"}},
		{"internal/label", "planner/search", []string{"internal/label imports planner/search"}},
		{"cmd/optimemctl", "planner/search", nil},
	} {
		path := test.imports
		if _, ours := May[path]; ours {
			path = Module + "/" + path
		}
		got := violations(listed{ImportPath: Module + "/" + test.from, Imports: []string{path}})
		if !slices.Equal(got, test.found) {
			t.Errorf("%s imports %s: found %q, want %q", test.from, test.imports, got, test.found)
		}
	}
}

func TestEveryRuledPackageExists(t *testing.T) {
	all := packages(t, "linux")
	for _, name := range slices.Concat(slices.Collect(maps.Keys(May)), Pure) {
		if !slices.ContainsFunc(all, func(p listed) bool { return p.ImportPath == Module+"/"+name }) {
			t.Errorf("there is no package %s: its rule holds nothing", name)
		}
	}
}
