package probe

import (
	"slices"
	"strings"
)

// A Reading has the figures of one look at the machine. All sizes are bytes.
type Reading struct {
	OS    string `json:"os"`   // runtime.GOOS
	Arch  string `json:"arch"` // runtime.GOARCH
	Cards []Card `json:"cards"`
	Host  Host   `json:"host"`
	Notes Notes  `json:"notes"`
}

// Notes are sentences for people about figures that could not be read, or that need care.
type Notes []string

// CardByUUID finds a card by its UUID, with or without the prefix "GPU-" and in either case: NVML writes it with the
// prefix, PyTorch without. Match cards so and not by index: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER renumber a
// process's devices, and NVML knows neither.
func (r Reading) CardByUUID(uuid string) (Card, bool) {
	want := bareUUID(uuid)
	if want == "" {
		return Card{}, false
	}
	i := slices.IndexFunc(r.Cards, func(c Card) bool { return bareUUID(c.UUID) == want })
	if i < 0 {
		return Card{}, false
	}
	return r.Cards[i], true
}

func bareUUID(uuid string) string { return strings.TrimPrefix(strings.ToLower(uuid), "gpu-") }

// clone shares nothing with r and has no nil slice, so that JSON shows [] and not null.
func (r Reading) clone() Reading {
	r.Cards = append([]Card{}, r.Cards...)
	for i := range r.Cards {
		r.Cards[i].Processes = append([]Process{}, r.Cards[i].Processes...)
	}
	r.Notes = append(Notes{}, r.Notes...)
	return r
}
