package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestWhichPythonIsFound(t *testing.T) {
	environment := map[string]string{"OPTIMEM_PYTHON": "/mine/python", "VIRTUAL_ENV": "/env"}
	const active, checkout, wheel, system = "/env/bin/python", "/src/.venv/bin/python", "/src/bin/python", "/usr/bin/python3"
	for name, test := range map[string]struct {
		flag  string
		env   []string // variables that are set
		there []string
		want  string // or a part of the error
	}{
		"the flag comes first":            {"/flag/python", []string{"OPTIMEM_PYTHON"}, []string{"/flag/python", "/mine/python"}, "/flag/python"},
		"the flag must be there":          {"/flag/python", nil, []string{system}, "--python: no Python at \"/flag/python\""},
		"then the variable":               {"", []string{"OPTIMEM_PYTHON", "VIRTUAL_ENV"}, []string{"/mine/python", active}, "/mine/python"},
		"the variable must be right":      {"", []string{"OPTIMEM_PYTHON"}, []string{system}, "OPTIMEM_PYTHON: no Python at"},
		"then the active environment":     {"", []string{"VIRTUAL_ENV"}, []string{active, checkout, wheel, system}, active},
		"then the one of a checkout":      {"", nil, []string{checkout, wheel, system}, checkout},
		"then the one beside the program": {"", []string{"VIRTUAL_ENV"}, []string{wheel, system}, wheel},
		"then the system's":               {"", nil, []string{system}, system},
		"without any, all that was tried": {"", []string{"VIRTUAL_ENV"}, nil, "tried " + strings.Join([]string{active, checkout, wheel, "python3"}, ", ")},
	} {
		t.Run(name, func(t *testing.T) {
			search := pythonSearch{
				flag: test.flag, binary: "/src/bin/optimemctl",
				getenv: func(name string) string {
					if slices.Contains(test.env, name) {
						return environment[name]
					}
					return ""
				},
				look: func(file string) (string, error) {
					if file == "python3" {
						file = system
					}
					if slices.Contains(test.there, file) {
						return file, nil
					}
					return "", errors.New("not found")
				},
			}
			got, err := search.find()
			if got != test.want && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("found %q: %v; want %q", got, err, test.want)
			}
		})
	}
}
