package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
)

// headed is the beginning of a file with a header.
func headed(header string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

const two = `{"__metadata__": {"format": "pt"}, "b": {"dtype": "F16", "shape": [2, 3], "data_offsets": [4, 16]},
	"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "c": {"dtype": "I64", "shape": [0, 5], "data_offsets": [16, 16]}}   `

func TestAHeaderIsReadAndNothingElse(t *testing.T) {
	start := headed(two)
	file := &counted{r: io.MultiReader(bytes.NewReader(start), strings.NewReader(strings.Repeat("x", 16)))}
	tensors, err := ReadHeader(file, int64(len(start))+16)
	if err != nil || file.n != int64(len(start)) {
		t.Fatalf("%v after %d of %d bytes", err, file.n, len(start))
	}
	var got []string
	for _, tensor := range tensors {
		got = append(got, fmt.Sprint(tensor.Name, tensor.Type, tensor.Shape, tensor.Elements, " ", tensor.Bytes()))
	}
	if want := "[aF32[] 1 4 bF16[2 3] 6 12 cI64[0 5] 0 0]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestMetadataMayBeLong(t *testing.T) {
	header := `{"__metadata__": {"tags": "` + strings.Repeat("x", 1<<20) + `"}, "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}`
	if _, err := ReadHeader(bytes.NewReader(headed(header)), int64(len(header))+9); err != nil {
		t.Error(err)
	}
}

// entry is a header with one tensor.
func entry(text string) []byte { return headed(`{"a.w": {` + text + `}}`) }

func TestAHeaderThatLies(t *testing.T) {
	length := func(n uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), "{}"...) }
	for name, test := range map[string]struct {
		file []byte
		data int64 // bytes behind it
		want string
	}{
		"an empty file":                  {nil, 0, "the file has 0 bytes, and the length of a header alone takes 8"},
		"a length that is cut off":       {make([]byte, 5), 0, "the file has 5 bytes"},
		"a header beyond the file":       {length(1000), 0, "the header says it has 1000 bytes, and the file has 2 after that figure: is it cut off?"},
		"a length of 2^63":               {length(1 << 63), 0, "the header says it has 9223372036854775808 bytes, more than the 100000000"},
		"a length of 2^64 - 1":           {length(1<<64 - 1), 100, "more than the 100000000"},
		"a length of nothing":            {length(0), 0, "too few for an object"},
		"zeros":                          {append(length(50)[:8], make([]byte, 100)...), 0, "begins with byte 0x00"},
		"another format":                 {append([]byte("PK\x03\x04"), make([]byte, 100)...), 0, "the header "},
		"no JSON":                        {headed(`{"a.w": }`), 0, "header"},
		"JSON that is cut off":           {headed(`{"a.w": {"dtype": "F32"`), 0, "header.a.w: the JSON ends too early"},
		"no tensor":                      {headed(`{"__metadata__": {}}`), 0, "the header names no tensor"},
		"a name twice":                   {headed(`{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}`), 1, "header.a: it is there twice"},
		"metadata that is no text":       {headed(`{"__metadata__": {"x": 3}}`), 0, "header.__metadata__.x: a number is the wrong kind: give a text"},
		"a tensor that is a list":        {headed(`{"a.w": []}`), 0, "header.a.w: a list is the wrong kind"},
		"an unknown type":                {entry(`"dtype": "F12", "shape": [1], "data_offsets": [0, 4]`), 4, "header.a.w.dtype: F12 is not known: known are BF16, "},
		"no type":                        {entry(`"shape": [1], "data_offsets": [0, 4]`), 4, "header.a.w.dtype: it is missing"},
		"no shape":                       {entry(`"dtype": "F32", "data_offsets": [0, 4]`), 4, "header.a.w.shape: it is missing"},
		"a negative side":                {entry(`"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]`), 4, "header.a.w.shape[0]: -1 is negative"},
		"sides whose product overflows":  {entry(`"dtype": "F32", "shape": [1125899906842624, 1125899906842624], "data_offsets": [0, 4]`), 4, "header.a.w.shape: [1125899906842624 1125899906842624] has more than 2^50"},
		"no offsets":                     {entry(`"dtype": "F32", "shape": [1]`), 4, "header.a.w.data_offsets: it is no list of two"},
		"one offset":                     {entry(`"dtype": "F32", "shape": [1], "data_offsets": [0]`), 4, "header.a.w.data_offsets: it is no list of two"},
		"a negative offset":              {entry(`"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]`), 4, "header.a.w.data_offsets[0]: -4 is negative"},
		"an offset of 2^63":              {entry(`"dtype": "F32", "shape": [1], "data_offsets": [0, 9223372036854775808]`), 4, "header.a.w.data_offsets[1]: 9223372036854775808 is too large"},
		"an end before the beginning":    {entry(`"dtype": "F32", "shape": [1], "data_offsets": [4, 0]`), 4, "header.a.w.data_offsets: it ends at 0, before it begins at 4"},
		"data beyond the file":           {entry(`"dtype": "F32", "shape": [1], "data_offsets": [0, 4]`), 3, "header.a.w.data_offsets: it ends at byte 4, and the file has 3"},
		"data of another size":           {entry(`"dtype": "F32", "shape": [2], "data_offsets": [0, 4]`), 4, "header.a.w.data_offsets: it has 4 bytes, and 2 elements of F32 have 8"},
		"a part of a byte":               {entry(`"dtype": "F4", "shape": [1], "data_offsets": [0, 1]`), 4, "have 4 bits, no whole number of bytes"},
		"an unknown field":               {entry(`"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "x": 1`), 4, "header.a.w.x: there is no such field"},
		"data that overlaps":             {headed(`{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}`), 6, "header.b.data_offsets: bytes 2 to 6 overlap with those of a, 0 to 4"},
		"data that lies in another's":    {headed(`{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "b": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]}}`), 6, "header.b.data_offsets: bytes 3 to 4 overlap"},
		"a name that is empty":           {headed(`{"": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}`), 1, `header."": it is the name of a tensor and empty`},
		"a name that is too long":        {headed(`{"` + strings.Repeat("n", 4097) + `": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}`), 1, "header." + strings.Repeat("n", 60) + "...: it is the name of a tensor and has 4097 bytes"},
		"a name that moves the terminal": {headed(`{"a\u001b[2J": {"dtype": "F12", "shape": [], "data_offsets": [0, 0]}}`), 0, `header."a\x1b[2J".dtype`},
	} {
		_, err := ReadHeader(bytes.NewReader(test.file), int64(len(test.file))+test.data)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
}

func TestTheSameDataMayHaveTwoNames(t *testing.T) {
	file := headed(`{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "b": {"dtype": "U8", "shape": [2, 2], "data_offsets": [0, 4]}}`)
	if tensors, err := ReadHeader(bytes.NewReader(file), int64(len(file))+4); err != nil || len(tensors) != 2 {
		t.Errorf("%v, %v", tensors, err)
	}
}

// FuzzReadHeader wants no file to break anything, and what is accepted to lie in the file.
func FuzzReadHeader(f *testing.F) {
	f.Add(headed(two), int64(16))
	f.Add(entry(`"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]`), int64(3))
	f.Add(append(binary.LittleEndian.AppendUint64(nil, 1<<63), '{'), int64(1<<62))
	f.Fuzz(func(t *testing.T, file []byte, data int64) {
		if data < 0 || data > 1<<60 {
			return
		}
		tensors, err := ReadHeader(bytes.NewReader(file), int64(len(file))+data)
		if err != nil {
			return
		}
		for _, tensor := range tensors {
			if tensor.Begin < 0 || tensor.Bytes() < 0 || tensor.End > int64(len(file))+data || tensor.Elements < 0 {
				t.Errorf("%+v does not lie in %d bytes", tensor, data)
			}
		}
	})
}
