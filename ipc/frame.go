package ipc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"
)

// MaxFrame caps the body of a frame, in bytes.
const MaxFrame = 16 << 20

// headerSize is that of the length in front of a body.
const headerSize = 4

// Encode returns the frame of a message: 4 bytes of length, big-endian, then [name, message].
func Encode(message Message) ([]byte, error) {
	value := reflect.ValueOf(message)
	if value.Kind() != reflect.Pointer || value.IsNil() {
		return nil, fmt.Errorf("encode %T: it is no pointer to a message", message)
	}
	name, ok := names[value.Type().Elem()]
	if !ok {
		return nil, fmt.Errorf("encode %T: it is no message of the protocol", message)
	}
	frame := bytes.NewBuffer(make([]byte, headerSize, 256))
	if err := encodeBody(frame, name, withoutNil(value.Elem())); err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	size := frame.Len() - headerSize
	if size > MaxFrame {
		return nil, fmt.Errorf("encode %s: %d bytes are above the cap of %d", name, size, MaxFrame)
	}
	if _, err := inspect(frame.Bytes()[headerSize:]); err != nil { // text that is not UTF-8, too many values
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	binary.BigEndian.PutUint32(frame.Bytes(), uint32(size))
	return frame.Bytes(), nil
}

func encodeBody(w io.Writer, name string, message any) error {
	encoder := msgpack.NewEncoder(w)
	encoder.UseCompactInts(true)
	encoder.UseArrayEncodedStructs(true)
	if err := encoder.EncodeArrayLen(2); err != nil {
		return err
	}
	if err := encoder.EncodeString(name); err != nil {
		return err
	}
	return encoder.Encode(message)
}

// withoutNil is a copy of a message in which nil slices are empty ones, since nil does not travel.
func withoutNil(value reflect.Value) any {
	out := reflect.New(value.Type()).Elem()
	out.Set(value)
	fill(out)
	return out.Interface()
}

func fill(value reflect.Value) {
	for i := range value.NumField() {
		field := value.Field(i)
		switch {
		case !value.Type().Field(i).IsExported():
		case field.Kind() == reflect.Struct:
			fill(field)
		case field.Kind() == reflect.Slice:
			field.Set(filled(field))
		}
	}
}

func filled(slice reflect.Value) reflect.Value {
	out := reflect.MakeSlice(slice.Type(), slice.Len(), slice.Len())
	reflect.Copy(out, slice)
	if slice.Type().Elem().Kind() == reflect.Struct {
		for i := range out.Len() {
			fill(out.Index(i))
		}
	}
	return out
}

// Decode returns the message of a frame's body. Nothing is allocated for a body that does not pass the guard, and its
// error is ErrMalformed.
func Decode(body []byte) (Message, error) {
	if len(body) > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes are above the cap of %d", ErrMalformed, len(body), MaxFrame)
	}
	name, err := inspect(body)
	if err != nil {
		return nil, err
	}
	message := reflect.New(messages[name]).Interface()
	decoder := msgpack.NewDecoder(bytes.NewReader(body))
	if _, err := decoder.DecodeArrayLen(); err != nil {
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	if _, err := decoder.DecodeString(); err != nil {
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	if err := decoder.Decode(message); err != nil {
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	return message, nil
}

// readFrame reads the body of one frame. Its length is checked before anything is allocated for it, against the cap as it is
// then.
func readFrame(r io.Reader, most func() uint32) ([]byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[:])
	if limit := most(); size > limit {
		return nil, fmt.Errorf("%w: it declares %d bytes, the cap is %d", ErrMalformed, size, limit)
	}
	// Grows with what arrives, so that a header alone costs nothing.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(size)); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}
