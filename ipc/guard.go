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

// MaxValues caps the values in a frame: decoding may allocate a hundred times the byte that a value took.
const MaxValues = 1 << 20

// A guard walks a frame along a shape without decoding it. It refuses lengths larger than the bytes that remain, and every
// type, count and range that the message does not have. The shape sets how deep it goes, not the frame.
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
	s, ok := schemas[string(name)]
	if !ok {
		return "", fmt.Errorf("%w: there is no message %q", ErrMalformed, name)
	}
	if err := g.walk(s); err != nil {
		return "", err
	}
	if len(g.rest) > 0 {
		return "", fmt.Errorf("%w: %d bytes follow the message %s", ErrMalformed, len(g.rest), name)
	}
	return s.name, nil
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
		count, err = g.length(2, 1<<4, name)
	case code == 0xdd:
		count, err = g.length(4, 1<<16, name)
	default:
		return 0, wrongType(name, "an array", code)
	}
	if err != nil {
		return 0, err
	}
	if g.items += int(min(count, MaxValues+1)); g.items > MaxValues {
		return 0, fmt.Errorf("%w: %s brings the frame above %d values", ErrMalformed, name, MaxValues)
	}
	return g.backed(count, name)
}

// text returns the bytes of a string, as they lie in the frame.
func (g *guard) text(name string) ([]byte, error) {
	size, err := g.textLength(name)
	if err != nil {
		return nil, err
	}
	text := g.rest[:size]
	g.rest = g.rest[size:]
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("%w: %s is not valid UTF-8", ErrMalformed, name)
	}
	return text, nil
}

func (g *guard) textLength(name string) (int, error) {
	code, err := g.code(name)
	if err != nil {
		return 0, err
	}
	var size uint64
	switch {
	case code&0xe0 == 0xa0:
		size = uint64(code & 0x1f)
	case code == 0xd9:
		size, err = g.length(1, 1<<5, name)
	case code == 0xda:
		size, err = g.length(2, 1<<8, name)
	case code == 0xdb:
		size, err = g.length(4, 1<<16, name)
	default:
		return 0, wrongType(name, "text", code)
	}
	if err != nil {
		return 0, err
	}
	return g.backed(size, name)
}

func (g *guard) boolean(name string) error {
	code, err := g.code(name)
	if err == nil && code != 0xc2 && code != 0xc3 {
		return wrongType(name, "true or false", code)
	}
	return err
}

// number accepts unsigned integers.
func (g *guard) number(name string) error {
	code, err := g.code(name)
	if err != nil || code < 0x80 {
		return err
	}
	switch code {
	case 0xcc:
		_, err = g.length(1, 1<<7, name)
	case 0xcd:
		_, err = g.length(2, 1<<8, name)
	case 0xce:
		_, err = g.length(4, 1<<16, name)
	case 0xcf:
		_, err = g.length(8, 1<<32, name)
	default:
		return wrongType(name, "an unsigned integer", code)
	}
	return err
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

// length reads a big-endian number of size bytes. One below least would have had a shorter form, which is the only one
// allowed: so there is one way to write each message.
func (g *guard) length(size int, least uint64, name string) (uint64, error) {
	if len(g.rest) < size {
		return 0, fmt.Errorf("%w: it ends within %s", ErrMalformed, name)
	}
	var wide [8]byte
	copy(wide[8-size:], g.rest[:size])
	g.rest = g.rest[size:]
	value := binary.BigEndian.Uint64(wide[:])
	if value < least {
		return 0, fmt.Errorf("%w: %s writes %d in %d bytes, which is not its shortest form", ErrMalformed, name, value, size)
	}
	return value, nil
}

func wrongType(name, want string, code byte) error {
	return fmt.Errorf("%w: %s should be %s, but its code is 0x%02x", ErrMalformed, name, want, code)
}
