package search

import "github.com/optimem/optimem/planner"

// moduleKeys names for every unit the outermost module around it that has at most maxParameters. Where there is none, it names
// the unit itself. Units with the same name belong together.
func moduleKeys(units []planner.Unit, maxParameters int64) []string {
	sums := map[string]int64{}
	for _, u := range units {
		for _, prefix := range prefixes(u.Path) {
			sums[prefix] += u.Parameters
		}
	}
	keys := make([]string, len(units))
	for i, u := range units {
		keys[i] = u.Path
		for _, prefix := range prefixes(u.Path) {
			if sums[prefix] <= maxParameters {
				keys[i] = prefix
				break
			}
		}
	}
	return keys
}

// prefixes are the modules around a path and the path itself, outermost first.
func prefixes(path string) []string {
	var out []string
	for i, r := range path {
		if r == '.' {
			out = append(out, path[:i])
		}
	}
	return append(out, path)
}
