package safetensors

import (
	"maps"
	"slices"
	"strings"
)

// A DType is a type of number, as headers call it.
type DType string

// A format is how many bits an element takes, and the kind of number that a processor computes it in.
type format struct {
	bits int64
	kind string
}

var formats = map[DType]format{
	"F64": {64, "fp64"}, "F32": {32, "fp32"}, "F16": {16, "fp16"}, "BF16": {16, "bf16"}, "C64": {64, "fp32"},
	"F8_E4M3": {8, "fp8"}, "F8_E5M2": {8, "fp8"}, "F8_E8M0": {8, "fp8"}, "F8_E4M3FNUZ": {8, "fp8"}, "F8_E5M2FNUZ": {8, "fp8"},
	"F6_E2M3": {6, "fp8"}, "F6_E3M2": {6, "fp8"}, "F4": {4, "fp8"},
	"I64": {64, "int8"}, "U64": {64, "int8"}, "I32": {32, "int8"}, "U32": {32, "int8"}, "I16": {16, "int8"}, "U16": {16, "int8"},
	"I8": {8, "int8"}, "U8": {8, "int8"}, "BOOL": {8, "int8"},
}

// Kind is the kind of number that a processor computes in: fp32, bf16, int8, ...
func (d DType) Kind() string { return formats[d].kind }

// knownTypes lists the types for people.
func knownTypes() string {
	var names []string
	for _, d := range slices.Sorted(maps.Keys(formats)) {
		names = append(names, string(d))
	}
	return strings.Join(names, ", ")
}
