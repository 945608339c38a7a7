package planner

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

var factors = map[string]int64{
	"": 1, "b": 1,
	"k": 1 << 10, "kib": 1 << 10, "kb": 1e3,
	"m": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gib": 1 << 30, "gb": 1e9,
	"t": 1 << 40, "tib": 1 << 40, "tb": 1e12,
}

var quantity = regexp.MustCompile(`^([0-9][0-9_]*(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?)\s*([a-z%]*)$`)

// split reads "1.5 GiB" as a number and a unit in lower case.
func split(text string) (*big.Rat, string, error) {
	parts := quantity.FindStringSubmatch(strings.ToLower(strings.TrimSpace(text)))
	if parts == nil {
		return nil, "", fmt.Errorf("%q is no size", text)
	}
	number, ok := new(big.Rat).SetString(strings.ReplaceAll(parts[1], "_", ""))
	if !ok {
		return nil, "", fmt.Errorf("%q is no size", text)
	}
	return number, parts[2], nil
}

// whole is number times factor, rounded down. ok is false above Largest.
func whole(number *big.Rat, factor int64) (n int64, ok bool) {
	product := new(big.Rat).Mul(number, new(big.Rat).SetInt64(factor))
	floor := new(big.Int).Quo(product.Num(), product.Denom())
	return floor.Int64(), floor.IsInt64() && floor.Int64() <= Largest
}

// ParseBytes reads "6GiB", "512 MB", "1.5g" or a bare number of bytes. The error quotes the text and gives examples.
func ParseBytes(text string) (Bytes, error) {
	number, unit, err := split(text)
	factor, known := factors[unit]
	if err != nil || !known {
		return 0, fmt.Errorf("%q is no size: give bytes with a unit, such as 6GiB or 512MB", text)
	}
	size, ok := whole(number, factor)
	if !ok {
		return 0, fmt.Errorf("%q is above the largest size, %v", text, Bytes(Largest))
	}
	return Bytes(size), nil
}

// ParseShare reads the same texts as ParseBytes, and percentages such as "25%". An empty text is the zero Share.
func ParseShare(text string) (Share, error) {
	if text == "" {
		return Share{}, nil
	}
	if number, unit, err := split(text); err == nil && unit == "%" {
		share, ok := whole(number, 1000)
		if !ok || share < 1 || share > 1_000_000 {
			return Share{}, fmt.Errorf("%q is no share: give more than 0%% and at most 1000%%", text)
		}
		return Share{MilliPercent: share}, nil
	}
	size, err := ParseBytes(text)
	if err != nil {
		return Share{}, fmt.Errorf("%q is neither a size nor a share: give bytes with a unit, such as 6GiB, or a share such as 25%%", text)
	}
	if size == 0 {
		return Share{}, fmt.Errorf("%q leaves nothing: give more than 0 bytes", text)
	}
	return Share{Bytes: size}, nil
}

// String prints a text that ParseShare reads.
func (s Share) String() string {
	switch {
	case s.MilliPercent > 0:
		return strconv.FormatFloat(float64(s.MilliPercent)/1000, 'f', -1, 64) + "%"
	case s.Bytes > 0:
		return strconv.FormatInt(int64(s.Bytes), 10) + "B"
	}
	return ""
}

// ParseCapacity reads a bare number, such as 1000000, 1_000_000 or 1e6, as parameters, and a number with a unit as bytes. An
// empty text is the zero Capacity.
func ParseCapacity(text string) (Capacity, error) {
	if text == "" {
		return Capacity{}, nil
	}
	number, unit, err := split(text)
	factor, known := factors[unit]
	if err != nil || !known {
		return Capacity{}, fmt.Errorf("%q is no capacity: give a number of parameters, such as 1e9, or bytes with a unit, such as 2GiB", text)
	}
	n, ok := whole(number, factor)
	if !ok || n == 0 {
		return Capacity{}, fmt.Errorf("%q is out of range: give more than 0 and at most %d", text, int64(Largest))
	}
	if unit == "" {
		return Capacity{Parameters: n}, nil
	}
	return Capacity{Bytes: Bytes(n)}, nil
}

// String prints a text that ParseCapacity reads.
func (c Capacity) String() string {
	switch {
	case c.Parameters > 0:
		return strconv.FormatInt(c.Parameters, 10)
	case c.Bytes > 0:
		return strconv.FormatInt(int64(c.Bytes), 10) + "B"
	}
	return ""
}
