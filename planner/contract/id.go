package contract

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/optimem/optimem/internal/strict"
)

// An ID names a unit in a document, by a text or by an integer; the zero ID names nothing. IDs can be compared.
type ID struct {
	text    string // of an integer the digits
	integer bool
}

// TextID makes an ID of a text.
func TextID(text string) ID { return ID{text: text} }

// IntegerID makes an ID of an integer.
func IntegerID(n int64) ID { return ID{strconv.FormatInt(n, 10), true} }

// String is the text, or the digits.
func (id ID) String() string { return id.text }

// mostID is the largest integer that every reader of JSON keeps apart from its neighbours.
const mostID = 1 << 53

// UnmarshalJSONFrom reads a text or an integer.
func (id *ID) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	if decoder.PeekKind() == '0' {
		value, err := decoder.ReadValue()
		if err != nil {
			return err
		}
		n, ok := parseID(string(value))
		if !ok {
			return strict.Fault("", "%s is no id: give a text, or an integer within 2^53", strict.Shown(string(value)))
		}
		*id = IntegerID(n)
		return nil
	}
	text, err := strict.ReadText(decoder, "a text or an integer")
	if err == nil && text == "" {
		err = strict.Fault("", "it is empty: give a text or an integer, or leave it out")
	}
	*id = TextID(text)
	return err
}

// parseID reads 5, 5.0 and 5e0 alike, since JSON knows no difference.
func parseID(text string) (n int64, ok bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, n >= -mostID && n <= mostID
	}
	f, err := strconv.ParseFloat(text, 64)
	return int64(f), err == nil && f == math.Trunc(f) && math.Abs(f) < mostID
}

// MarshalJSONTo writes the text or the integer that was read.
func (id ID) MarshalJSONTo(encoder *jsontext.Encoder) error {
	if id.integer {
		return encoder.WriteValue(jsontext.Value(id.text))
	}
	return encoder.WriteToken(jsontext.String(id.text))
}

// A naming keeps the ids of the units of a manifest.
type naming struct {
	units  map[ID]int     // by id
	copies map[string]int // how often a path was an id
}

func newNaming() naming { return naming{map[ID]int{}, map[string]int{}} }

// free is a path as an id, with a number where the path alone is taken.
func (n naming) free(path string) ID {
	for {
		n.copies[path]++
		id := TextID(path)
		if copies := n.copies[path]; copies > 1 {
			number := fmt.Sprintf("#%d", copies)
			id = TextID(head(path, strict.Longest-len(number)) + number)
		}
		if _, taken := n.units[id]; !taken {
			return id
		}
	}
}

// head is the beginning of a text, at most so many bytes long.
func head(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}
