// Package safetensors reads which tensors .safetensors files hold: names, types, shapes and places, never the weights.
//
// A file begins with the length of its header in 8 bytes, little-endian, and the header in JSON. A model is one file, a
// folder with an index that names its files, or a folder with files alone. Files come from strangers: nothing that a header
// says is believed before it is checked against the file.
package safetensors
