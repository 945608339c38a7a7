//go:build !linux || !cgo

package probe

import (
	"errors"
	"testing"
)

func TestABuildWithoutNVMLSeesNoCardAndRefusesALibrary(t *testing.T) {
	cards, notes, err := NVML("").ReadCards(t.Context())
	if err != nil || len(cards) != 0 || len(notes) != 1 {
		t.Errorf("cards %v, notes %q, error %v; want one note alone", cards, notes, err)
	}
	if _, _, err := NVML("./libnvidia-ml.so").ReadCards(t.Context()); !errors.Is(err, ErrLibrary) {
		t.Errorf("got %v, want ErrLibrary", err)
	}
}
