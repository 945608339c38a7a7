package checkpoint

import (
	"maps"
	"slices"
	"strings"

	"github.com/optimem/optimem/internal/safetensors"
)

// A module owns tensors, by their names.
type module struct {
	path    string
	tensors []safetensors.Tensor
}

// modules are the owners of tensors in the order in which they are read.
func modules(tensors []safetensors.Tensor) []module {
	owned := map[string][]safetensors.Tensor{}
	for _, t := range tensors {
		owned[owner(t.Name)] = append(owned[owner(t.Name)], t)
	}
	var out []module
	for _, path := range slices.SortedFunc(maps.Keys(owned), compare) {
		out = append(out, module{path, owned[path]})
	}
	return out
}

// owner is the module that a name says has the tensor: layers.0.q of layers.0.q.weight.
func owner(name string) string {
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		return name[:dot]
	}
	return name
}

// isLookup tells whether a module is a table of which a forward reads some rows.
func (m module) isLookup() bool {
	last := m.path[strings.LastIndexByte(m.path, '.')+1:]
	return place(last) == placeEmbedding && len(m.tensors) == 1 && len(m.tensors[0].Shape) == 2 && last != "conv_in"
}

// A place is where data lies.
type data struct {
	file       string
	begin, end int64
	name       string // of an empty tensor, which shares nothing
}

func dataOf(t safetensors.Tensor) data {
	if t.Bytes() == 0 {
		return data{name: t.Name}
	}
	return data{file: t.File, begin: t.Begin, end: t.End}
}
