package floorplan

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// named are the modes and placements. What they differ in stands in the tables of planner/mode.go and planner/placement.go, and
// only the search, which chooses placements, may ask which one it has.
var named = []string{"ModePage", "ModeChunk", "ModeAuto", "Resident", "Streamed", "OnCPU", "Unread"}

// compared lists the modes and placements that a source compares with by name, and where.
func compared(t *testing.T, path string, source any) (found []string) {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	look := func(operands ...ast.Expr) {
		for _, operand := range operands {
			if s, ok := operand.(*ast.SelectorExpr); ok && slices.Contains(named, s.Sel.Name) {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "planner" {
					found = append(found, files.Position(s.Pos()).String()+": "+s.Sel.Name)
				}
			}
		}
	}
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.BinaryExpr:
			if node.Op == token.EQL || node.Op == token.NEQ {
				look(node.X, node.Y)
			}
		case *ast.CaseClause:
			look(node.List...)
		}
		return true
	})
	return found
}

func TestModesAndPlacementsAreAskedForFactsNotNames(t *testing.T) {
	root := filepath.Join("..", "..")
	count := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch slashed := filepath.ToSlash(path); {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || strings.HasSuffix(slashed, "planner/search")):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		count++
		for _, place := range compared(t, path, nil) {
			t.Errorf("%s is compared with: ask for the fact that matters, such as Stays or UsesCPU, so that a new one is a row of a table", place)
		}
		return nil
	})
	if err != nil || count < 50 {
		t.Errorf("%d files were read: %v", count, err)
	}
}

func TestAComparisonWithANameIsFound(t *testing.T) {
	for code, want := range map[string]int{
		"_ = p.Mode == planner.ModeAuto":                                    1,
		"_ = planner.Resident != page.Placement":                            1,
		"switch p { case planner.Streamed, planner.OnCPU: }":                2,
		"_ = p.Placement.Stays()":                                           0,
		"o.Mode = planner.ModePage":                                         0,
		"_ = counts[planner.Unread]":                                        0,
		"_ = p.Bottleneck == planner.BoundByCPU":                            0,
		"_ = p.Resident == other.Resident":                                  0,
		"if p.Mode != planner.ModeChunk && x { _ = a == planner.Resident }": 2,
	} {
		if got := compared(t, "x.go", "package x\nfunc f() { "+code+" }"); len(got) != want {
			t.Errorf("%s: found %v", code, got)
		}
	}
}
