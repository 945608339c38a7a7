// Package checkpoint supposes from the names, types and shapes of a checkpoint's tensors what a recording would tell of the
// model: which weights move together, in which order they are read, and how long steps take.
//
// All of it is a guess, and the manifest says so. Names are sorted as people count (layers.2 before layers.10), embeddings
// come first, the last norm and the head last. Each module is read once in a forward.
package checkpoint
