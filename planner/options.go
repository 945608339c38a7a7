package planner

// Options are the wishes of a user. The zero value of a field leaves the choice to the planner.
type Options struct {
	Mode         Mode
	VRAM         Share    // device memory to use, in bytes or in percent of the weights
	Budget       Bytes    // device bytes for weights alone; above 0 it replaces VRAM and the free memory
	PagesAsGiven bool     // every unit is one page and one copy: nothing is merged
	MaxLayerSize int64    // in parameters: modules up to this size are paged whole
	MaxCapacity  Capacity // of the run in mode chunk
}

// A Share is an amount of device memory: bytes on the card in all, activations included, or percent of the weights, for weights
// alone. Where both are zero it is all free memory.
type Share struct {
	Bytes        Bytes
	MilliPercent int64 // 25 % is 25000
}

// A Capacity is the size of a chunk: a number of parameters, or bytes. Where both are zero it is the whole budget.
type Capacity struct {
	Parameters int64
	Bytes      Bytes
}
