package strict

import (
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Largest is the largest Whole: the planner takes no larger size and no longer time.
const Largest = 1 << 50

// A Whole is a size or a time: a whole number from 0 to the largest that the planner takes.
type Whole int64

// UnmarshalJSONFrom reads 5, 5.0 and 5e0 alike, since JSON knows no difference.
func (w *Whole) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	kind := decoder.PeekKind()
	value, err := decoder.ReadValue()
	if err != nil {
		return err
	}
	if kind != '0' {
		return Fault("", "%s is the wrong kind: give a whole number", kinds[kind])
	}
	*w, err = ParseWhole(string(value))
	return err
}

// ParseWhole reads what stands for a number in JSON.
func ParseWhole(text string) (Whole, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 && n <= Largest {
		return Whole(n), nil
	}
	n, err := strconv.ParseFloat(text, 64) // exact up to the largest; beyond it an error is infinity
	switch {
	case strings.HasPrefix(text, "-") && n != 0:
		return 0, Fault("", "%s is negative: give a whole number from 0 to %d", Shown(text), int64(Largest))
	case err != nil || n > Largest:
		return 0, Fault("", "%s is too large: give a whole number from 0 to %d (2^50)", Shown(text), int64(Largest))
	case n != math.Trunc(n):
		return 0, Fault("", "%s is a fraction: give a whole number", Shown(text))
	}
	return Whole(n), nil
}
