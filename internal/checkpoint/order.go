package checkpoint

import (
	"cmp"
	"slices"
	"strings"
)

// The places of a module among its siblings, in the order in which they are read.
const (
	placeEmbedding = iota
	placeUsual
	placeLater // a second part: a decoder, flux's single blocks
	placeNorm
	placeHead
)

var (
	embeddings = []string{"wte", "wpe", "shared", "class_token", "cls_token", "conv_in", "patchify"}
	heads      = []string{"fc", "classifier", "score", "output", "output_projection", "conv_out", "proj_out", "final_layer", "pooler"}
	lastNorms  = []string{"ln", "ln_f", "ln_final", "ln_post"}
)

// compare puts the module that is read first first. Modules are compared from the root down, by place as long as no layer
// is numbered, and else as people count.
func compare(a, b string) int {
	left, right := strings.Split(a, "."), strings.Split(b, ".")
	numbered := false
	for i := range min(len(left), len(right)) {
		if left[i] == right[i] {
			numbered = numbered || isNumbered(left[i])
			continue
		}
		if !numbered {
			if by := cmp.Compare(place(left[i]), place(right[i])); by != 0 {
				return by
			}
		}
		return natural(left[i], right[i])
	}
	return cmp.Compare(len(left), len(right))
}

// place says where a module is read, by its own name.
func place(name string) int {
	switch name = strings.ToLower(name); {
	case slices.Contains(heads, name), strings.Contains(name, "head"), strings.HasPrefix(name, "embed_out"):
		return placeHead
	case slices.Contains(embeddings, name), strings.Contains(name, "embed"):
		return placeEmbedding
	case slices.Contains(lastNorms, name), strings.Contains(name, "norm") && !strings.Contains(name, "pre"):
		return placeNorm
	case name == "decoder", strings.HasPrefix(name, "single_"):
		return placeLater
	}
	return placeUsual
}

// isNumbered tells whether a name is that of one among many: 3, encoder_layer_3.
func isNumbered(name string) bool {
	return name != "" && name[len(name)-1] >= '0' && name[len(name)-1] <= '9'
}

// natural compares two names, runs of digits by their number.
func natural(a, b string) int {
	for a != "" && b != "" {
		left, right := leading(a), leading(b)
		if by := compareRun(left, right); by != 0 {
			return by
		}
		a, b = a[len(left):], b[len(right):]
	}
	return cmp.Compare(len(a), len(b))
}

// leading is the run of digits, or of anything else, at the beginning.
func leading(text string) string {
	digit := isDigit(text[0])
	for i := range len(text) {
		if isDigit(text[i]) != digit {
			return text[:i]
		}
	}
	return text
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func compareRun(a, b string) int {
	if isDigit(a[0]) && isDigit(b[0]) {
		x, y := strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y), cmp.Compare(len(a), len(b)))
	}
	return cmp.Compare(a, b)
}
