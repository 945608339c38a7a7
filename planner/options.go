package planner

// Options are a user's wishes. The zero value of a field leaves the choice to the planner.
type Options struct {
	Mode         Mode
	VRAM         Share    // device bytes, or a share of the model's weights
	Budget       Bytes    // device bytes for weights alone; above 0 it stands in place of VRAM and of the reserve
	PagesAsGiven bool     // every unit is one page and one copy: nothing is merged
	MaxLayerSize int64    // parameters: modules up to this size are paged whole
	MaxCapacity  Capacity // chunk: how much of the model may live on the device
}

// A Share is an amount of device memory: bytes on the card in all (activations included), or percent of the weights (for
// weights alone). Both zero means: whatever is free.
type Share struct {
	Bytes        Bytes
	MilliPercent int64 // 25 % is 25000
}

// A Capacity is a size of a chunk: a number of parameters, or bytes. Both zero means: the whole budget.
type Capacity struct {
	Parameters int64
	Bytes      Bytes
}
