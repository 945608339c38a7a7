package ipc

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// pack writes what no honest side would.
func pack(t testing.TB, value any) []byte {
	t.Helper()
	var body bytes.Buffer
	encoder := msgpack.NewEncoder(&body)
	encoder.UseCompactInts(true)
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	return body.Bytes()
}

// begin is the start of a frame of a message.
func begin(name string) []byte {
	return append([]byte{0x92, 0xa0 | byte(len(name))}, name...)
}

// lies are frames that declare more than they bring, each of few bytes.
func lies() map[string][]byte {
	huge := []byte{0xdd, 0xff, 0xff, 0xff, 0xff}
	return map[string][]byte{
		"four billion fields":             append(begin("bye"), huge...),
		"four billion strings":            append(append(begin("welcome"), 0x92, 0xa0), huge...),
		"four billion numbers":            append(append(begin("measured"), 0x97), huge...),
		"four billion structs":            append(append(begin("plan"), 0x9c, 0x01, 0xa0), huge...),
		"a text of four billion bytes":    append(append(begin("bye"), 0x91), 0xdb, 0xff, 0xff, 0xff, 0xff),
		"a name of four billion bytes":    {0x92, 0xdb, 0xff, 0xff, 0xff, 0xff},
		"a frame of four billion values":  huge,
		"binary where text should be":     append(append(begin("bye"), 0x91), 0xc6, 0xff, 0xff, 0xff, 0xff),
		"a map where an array should be":  append(begin("bye"), 0xdf, 0xff, 0xff, 0xff, 0xff),
		"an extension":                    append(append(begin("bye"), 0x91), 0xc9, 0xff, 0xff, 0xff, 0xff, 0x01),
		"nothing":                         {},
		"a length that is itself cut off": append(append(begin("bye"), 0x91), 0xdb, 0xff),
	}
}

func TestLiesAreRefusedBeforeAnythingIsAllocated(t *testing.T) {
	for name, body := range lies() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Decode(body)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v", err)
			}
			if spent := after.TotalAlloc - before.TotalAlloc; spent > 1<<16 {
				t.Errorf("%d bytes were allocated for %d", spent, len(body))
			}
		})
	}
}

func TestWhatTheProtocolDoesNotHaveIsRefusedByName(t *testing.T) {
	tests := map[string]struct {
		value any
		want  string
	}{
		"an unknown message":     {[]any{"hi", []any{}}, `no message "hi"`},
		"a field too few":        {[]any{"shrink", []any{1}}, "shrink has 1 fields, not 2"},
		"a field too many":       {[]any{"bye", []any{"a", "b"}}, "bye has 2 fields, not 1"},
		"a negative number":      {[]any{"shrink", []any{-1, 0}}, "shrink.Bytes should be an unsigned integer"},
		"a float":                {[]any{"shrink", []any{1.5, 0}}, "shrink.Bytes should be an unsigned integer"},
		"nil for a text":         {[]any{"bye", []any{nil}}, "bye.Reason should be text"},
		"nil for a list":         {[]any{"welcome", []any{"s", nil}}, "welcome.Measure should be an array"},
		"a number for a text":    {[]any{"bye", []any{7}}, "bye.Reason should be text"},
		"a text for a number":    {[]any{"shrink", []any{"7", 0}}, "shrink.Bytes should be an unsigned integer"},
		"a text that is no text": {[]any{"bye", []any{"\xff\xfe"}}, "bye.Reason is not valid UTF-8"},
		"a message without name": {[]any{[]any{}, []any{}}, "frame.name should be text"},
		"a list as the message":  {[]any{"bye", "reason"}, "bye should be an array"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(pack(t, test.value))
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, not %q", err, test.want)
			}
		})
	}
}

func TestBytesBehindAMessageAreRefused(t *testing.T) {
	frame, err := Encode(&Bye{Reason: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(append(frame[headerSize:], 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

func TestANumberHasOneWayToBeWritten(t *testing.T) {
	body := append(append(begin("shrink"), 0x92), 0xcd, 0x00, 0x07, 0x00) // 7 in two bytes
	if _, err := Decode(body); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

func TestAFrameOfAMillionValuesIsTooMany(t *testing.T) {
	body := append(append(begin("welcome"), 0x92, 0xa0), 0xdd, 0x00, 0x20, 0x00, 0x00)
	body = append(body, bytes.Repeat([]byte{0xa0}, 1<<21)...)
	if _, err := Decode(body); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
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
		f.Add(frame[headerSize:])
	}
	f.Add(bytes.Repeat([]byte{0x91}, 4096)) // deeply nested
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
		if len(again)-headerSize > len(body) { // lengths may be written longer than need be, never shorter
			t.Fatalf("%x was read, %x is written", body, again)
		}
	})
}

func BenchmarkDecodeALargePlan(b *testing.B) {
	plan := &Plan{Mode: "page"}
	for i := range uint64(10_000) {
		plan.Pages = append(plan.Pages, Page{Units: []uint64{i}, Bytes: 1 << 20, Placement: "streamed"})
		plan.Copies = append(plan.Copies, Copy{Page: i, Offset: i << 20, First: i, Last: i, After: 3})
	}
	frame, err := Encode(plan)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(frame[headerSize:]); err != nil {
			b.Fatal(err)
		}
	}
}
