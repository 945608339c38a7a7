package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"unicode/utf8"
)

// ErrMalformed tells that a frame is not what the protocol allows.
var ErrMalformed = errors.New("malformed frame")

// maxItems caps the values in a frame: what decoding allocates per value may be a hundred times the byte it took.
const maxItems = 1 << 20

// A guard walks a frame along a shape without decoding it. It refuses whatever declares more than the bytes that remain,
// and every type, count and range that the message does not have.
type guard struct {
	rest  []byte
	items int
}

// inspect checks a whole body and returns the name of its message.
func inspect(body []byte) (string, error) {
	g := &guard{rest: body}
	if err := g.array(2, "frame"); err != nil {
		return "", err
	}
	name, err := g.text("frame.name")
	if err != nil {
		return "", err
	}
	s, ok := schemas[name]
	if !ok {
		return "", fmt.Errorf("%w: there is no message %q", ErrMalformed, name)
	}
	if err := g.walk(s); err != nil {
		return "", err
	}
	if len(g.rest) > 0 {
		return "", fmt.Errorf("%w: %d bytes follow the message %s", ErrMalformed, len(g.rest), name)
	}
	return name, nil
}

func (g *guard) walk(s *shape) error {
	switch s.kind {
	case reflect.String:
		_, err := g.text(s.name)
		return err
	case reflect.Bool:
		return g.boolean(s.name)
	case reflect.Slice:
		return g.slice(s)
	case reflect.Struct:
		return g.record(s)
	}
	return g.number(s.name)
}

func (g *guard) record(s *shape) error {
	if err := g.array(len(s.fields), s.name); err != nil {
		return err
	}
	for _, field := range s.fields {
		if err := g.walk(field); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) slice(s *shape) error {
	count, err := g.arrayLength(s.name)
	if err != nil {
		return err
	}
	for range count {
		if err := g.walk(s.elem); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) array(want int, name string) error {
	count, err := g.arrayLength(name)
	if err == nil && count != want {
		return fmt.Errorf("%w: %s has %d fields, not %d", ErrMalformed, name, count, want)
	}
	return err
}

func (g *guard) arrayLength(name string) (int, error) {
	code, err := g.code(name)
	if err != nil {
		return 0, err
	}
	var count uint64
	switch {
	case code&0xf0 == 0x90:
		count = uint64(code & 0x0f)
	case code == 0xdc:
		count, err = g.length(2, name)
	case code == 0xdd:
		count, err = g.length(4, name)
	default:
		return 0, wrongType(name, "an array", code)
	}
	if err != nil {
		return 0, err
	}
	if g.items += int(min(count, maxItems+1)); g.items > maxItems {
		return 0, fmt.Errorf("%w: %s brings the frame above %d values", ErrMalformed, name, maxItems)
	}
	return g.backed(count, name)
}

func (g *guard) text(name string) (string, error) {
	code, err := g.code(name)
	if err != nil {
		return "", err
	}
	var size uint64
	switch {
	case code&0xe0 == 0xa0:
		size = uint64(code & 0x1f)
	case code >= 0xd9 && code <= 0xdb:
		size, err = g.length(1<<(code-0xd9), name)
	default:
		return "", wrongType(name, "text", code)
	}
	if err != nil {
		return "", err
	}
	n, err := g.backed(size, name)
	if err != nil {
		return "", err
	}
	text := g.rest[:n]
	g.rest = g.rest[n:]
	if !utf8.Valid(text) {
		return "", fmt.Errorf("%w: %s is not valid UTF-8", ErrMalformed, name)
	}
	return string(text), nil
}

func (g *guard) boolean(name string) error {
	code, err := g.code(name)
	if err == nil && code != 0xc2 && code != 0xc3 {
		return wrongType(name, "true or false", code)
	}
	return err
}

// number accepts unsigned integers in their shortest form only, so that there is one way to write each.
func (g *guard) number(name string) error {
	code, err := g.code(name)
	if err != nil || code < 0x80 {
		return err
	}
	if code < 0xcc || code > 0xcf {
		return wrongType(name, "an unsigned integer", code)
	}
	size := 1 << (code - 0xcc)
	value, err := g.length(size, name)
	if err == nil && shortest(value) != size {
		return fmt.Errorf("%w: %s writes %d in %d bytes", ErrMalformed, name, value, size)
	}
	return err
}

// shortest is the number of bytes behind the code of an unsigned integer.
func shortest(value uint64) int {
	switch {
	case value < 0x80:
		return 0
	case value < 1<<8:
		return 1
	case value < 1<<16:
		return 2
	case value < 1<<32:
		return 4
	}
	return 8
}

// backed refuses a length that the remaining bytes cannot hold; every value takes at least one.
func (g *guard) backed(length uint64, name string) (int, error) {
	if length > uint64(len(g.rest)) {
		return 0, fmt.Errorf("%w: %s declares %d where %d bytes remain", ErrMalformed, name, length, len(g.rest))
	}
	return int(length), nil
}

func (g *guard) code(name string) (byte, error) {
	if len(g.rest) == 0 {
		return 0, fmt.Errorf("%w: it ends before %s", ErrMalformed, name)
	}
	code := g.rest[0]
	g.rest = g.rest[1:]
	return code, nil
}

// length reads a big-endian number of size bytes.
func (g *guard) length(size int, name string) (uint64, error) {
	if len(g.rest) < size {
		return 0, fmt.Errorf("%w: it ends within %s", ErrMalformed, name)
	}
	var wide [8]byte
	copy(wide[8-size:], g.rest[:size])
	g.rest = g.rest[size:]
	return binary.BigEndian.Uint64(wide[:]), nil
}

func wrongType(name, want string, code byte) error {
	return fmt.Errorf("%w: %s should be %s, but its code is 0x%02x", ErrMalformed, name, want, code)
}
