package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"

	"github.com/optimem/optimem/internal/strict"
)

// largestHeader is the longest header in bytes that the format allows.
const largestHeader = 100_000_000

// A Tensor is one entry of a header.
type Tensor struct {
	Name       string
	Type       DType
	Shape      []int64
	Elements   int64
	Begin, End int64  // bytes in the data of its file
	File       string // the path of the file, where a file was read
}

// Bytes is the size of the data.
func (t Tensor) Bytes() int64 { return t.End - t.Begin }

type headerDoc struct {
	Metadata map[string]string    `json:"__metadata__,omitzero"` // of any length: trainers keep whole tables there
	Tensors  map[string]tensorDoc `json:",inline"`
}

type tensorDoc struct {
	Type    strict.Text     `json:"dtype"`
	Shape   *[]strict.Whole `json:"shape"`
	Offsets *[]strict.Whole `json:"data_offsets"`
}

// ReadHeader reads the header of a file of size bytes, and not a byte more. Tensors are in the order of their data; those of
// the same data follow each other.
func ReadHeader(r io.Reader, size int64) ([]Tensor, error) {
	text, err := headerText(r, size)
	if err != nil {
		return nil, err
	}
	var doc headerDoc
	if err := strict.Read(text, &doc); err != nil {
		return nil, strict.Within("header", err)
	}
	if len(doc.Tensors) == 0 {
		return nil, errors.New("the header names no tensor: there is nothing to plan")
	}
	data := size - 8 - int64(len(text))
	tensors := make([]Tensor, 0, len(doc.Tensors))
	for _, name := range slices.Sorted(maps.Keys(doc.Tensors)) {
		t, err := doc.Tensors[name].tensor(name, data)
		if err != nil {
			return nil, strict.Within("header", strict.Within(cmp.Or(strict.Shown(name), `""`), err))
		}
		tensors = append(tensors, t)
	}
	return tensors, checkOverlaps(tensors)
}

// headerText reads the length and that many bytes, which are there.
func headerText(r io.Reader, size int64) ([]byte, error) {
	if size < 8 {
		return nil, fmt.Errorf("the file has %d bytes, and the length of a header alone takes 8: is it cut off, or no .safetensors file?", size)
	}
	var prefix [8]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, fmt.Errorf("read the length of the header: %w", err)
	}
	length := binary.LittleEndian.Uint64(prefix[:])
	switch {
	case length > largestHeader:
		return nil, fmt.Errorf("the header says it has %d bytes, more than the %d that the format allows: is this a .safetensors file?",
			length, largestHeader)
	case int64(length) > size-8:
		return nil, fmt.Errorf("the header says it has %d bytes, and the file has %d after that figure: is it cut off? fetch it again",
			length, size-8)
	case length < 2:
		return nil, fmt.Errorf("the header says it has %d bytes, too few for an object: is this a .safetensors file?", length)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(r, first); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	if first[0] != '{' { // before the rest is read: a file of zeros is no header, however long it says it is
		return nil, fmt.Errorf("the header begins with byte 0x%02x and not with {: is this a .safetensors file?", first[0])
	}
	var text bytes.Buffer
	text.WriteByte('{')
	if n, err := io.CopyN(&text, r, int64(length)-1); err != nil {
		return nil, fmt.Errorf("read the header: %d of %d bytes came: %w", n+1, length, err)
	}
	return text.Bytes(), nil
}

// tensor checks an entry against the data that there is.
func (d tensorDoc) tensor(name string, data int64) (Tensor, error) {
	format, known := formats[DType(d.Type)]
	switch {
	case name == "":
		return Tensor{}, strict.Fault("", "it is the name of a tensor and empty: the header is damaged")
	case len(name) > strict.Longest:
		return Tensor{}, strict.Fault("", "it is the name of a tensor and has %d bytes: at most %d are taken", len(name), strict.Longest)
	case d.Type == "":
		return Tensor{}, strict.Fault("dtype", "it is missing: known are %s", knownTypes())
	case !known:
		return Tensor{}, strict.Fault("dtype", "%s is not known: known are %s", strict.Shown(string(d.Type)), knownTypes())
	case d.Shape == nil:
		return Tensor{}, strict.Fault("shape", "it is missing: a tensor has a list of sizes, [] for a single number")
	case d.Offsets == nil || len(*d.Offsets) != 2:
		return Tensor{}, strict.Fault("data_offsets", "it is no list of two offsets, [begin, end]")
	}
	t := Tensor{Name: name, Type: DType(d.Type), Begin: int64((*d.Offsets)[0]), End: int64((*d.Offsets)[1])}
	var fits bool
	if t.Elements, fits = elements(*d.Shape); !fits {
		return t, strict.Fault("shape", "%v has more than 2^50 elements: the header is damaged", *d.Shape)
	}
	for _, side := range *d.Shape {
		t.Shape = append(t.Shape, int64(side))
	}
	return t, t.checkPlace(format, data)
}

// checkPlace wants the data in the file, and as long as type and shape say.
func (t Tensor) checkPlace(f format, data int64) error {
	high, low := bits.Mul64(uint64(t.Elements), uint64(f.bits))
	switch {
	case t.End < t.Begin:
		return strict.Fault("data_offsets", "it ends at %d, before it begins at %d", t.End, t.Begin)
	case t.End > data:
		return strict.Fault("data_offsets", "it ends at byte %d, and the file has %d bytes of data: is it cut off? fetch it again", t.End, data)
	case high != 0 || low%8 != 0 || int64(low/8) != t.Bytes():
		return strict.Fault("data_offsets", "it has %d bytes, and %d elements of %s have %s", t.Bytes(), t.Elements, t.Type, sizeText(low))
	}
	return nil
}

func sizeText(bits uint64) string {
	if bits%8 != 0 {
		return fmt.Sprintf("%d bits, no whole number of bytes", bits)
	}
	return fmt.Sprint(bits / 8)
}

// elements multiplies the sides; false above 2^50.
func elements(shape []strict.Whole) (int64, bool) {
	if slices.Contains(shape, 0) {
		return 0, true
	}
	n := int64(1)
	for _, side := range shape {
		high, low := bits.Mul64(uint64(n), uint64(side))
		if high != 0 || low > strict.Largest {
			return 0, false
		}
		n = int64(low)
	}
	return n, true
}

// checkOverlaps sorts by place, and wants data apart or the same.
func checkOverlaps(tensors []Tensor) error {
	slices.SortStableFunc(tensors, func(a, b Tensor) int { return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End)) })
	var before *Tensor
	for i := range tensors {
		t := &tensors[i]
		if t.Bytes() == 0 {
			continue
		}
		if before != nil && t.Begin < before.End && (t.Begin != before.Begin || t.End != before.End) {
			return strict.Fault("header."+strict.Shown(t.Name)+".data_offsets", "bytes %d to %d overlap with those of %s, %d to %d: the header is damaged",
				t.Begin, t.End, strict.Shown(before.Name), before.Begin, before.End)
		}
		before = t
	}
	return nil
}
