package ipc

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// anyMessage draws a message of each type.
var anyMessage = map[string]func(*rapid.T) Message{
	"hello":    drawn[Hello],
	"welcome":  drawn[Welcome],
	"manifest": drawn[Manifest],
	"measured": drawn[Measured],
	"plan":     drawn[Plan],
	"refused":  drawn[Refused],
	"report":   drawn[Report],
	"short":    drawn[Short],
	"outcome":  drawn[Outcome],
	"shrink":   drawn[Shrink],
	"stop":     drawn[Stop],
	"failure":  drawn[Failure],
	"bye":      drawn[Bye],
}

func drawn[T any](t *rapid.T) Message {
	message := rapid.Make[T]().Draw(t, "message")
	return &message
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	for name := range messages {
		draw, ok := anyMessage[name]
		if !ok {
			t.Errorf("there is no %s to draw", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				message := draw(t)
				frame, err := Encode(message)
				if err != nil {
					t.Fatal(err)
				}
				read, err := Decode(frame[headerSize:])
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(message, read, cmpopts.EquateEmpty()); diff != "" {
					t.Fatal(diff)
				}
			})
		})
	}
}

func TestAFrameCutShortAnywhereIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frame, err := Encode(drawn[Manifest](t))
		if err != nil {
			t.Fatal(err)
		}
		body := frame[headerSize:]
		if _, err := Decode(body[:rapid.IntRange(0, len(body)-1).Draw(t, "cut")]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("got %v", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, body := range lies() {
		f.Add(body)
	}
	for _, message := range vectors() {
		frame, err := Encode(message)
		if err != nil {
			f.Fatal(err)
		}
		if len(frame) < 4096 {
			f.Add(frame[headerSize:])
		}
	}
	f.Add(bytes.Repeat([]byte{0x91}, 4096))                                     // deeply nested
	f.Add([]byte{0x92, 0xa4, 'p', 'l', 'a', 'n', 0xdd, 0xff, 0xff, 0xff, 0xff}) // 11 bytes that end a decoder without a guard
	f.Fuzz(func(t *testing.T, body []byte) {
		message, err := Decode(body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("the guard let through what cannot be decoded: %v", err)
			}
			return
		}
		again, err := Encode(message)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again[headerSize:], body) {
			t.Fatalf("%x was read, %x is written", body, again[headerSize:])
		}
	})
}
