package ipc

import (
	"bytes"
	"encoding/binary"
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
		"four billion strings":            append(append(begin("outcome"), 0x94, 0, 0, 0xa0), huge...),
		"four billion numbers":            append(append(begin("measured"), 0x9a), huge...),
		"four billion structs":            append(append(begin("plan"), 0x9c, 0x01, 0x00), huge...),
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
		"an unknown message":       {[]any{"hi", []any{}}, `no message "hi"`},
		"a field too few":          {[]any{"shrink", []any{1}}, "shrink has 1 fields, not 2"},
		"a field too many":         {[]any{"bye", []any{"a", "b"}}, "bye has 2 fields, not 1"},
		"a refusal without text":   {[]any{"refused", []any{1, "bad_input"}}, "refused has 2 fields, not 3"},
		"a shortage of no figures": {[]any{"short", []any{"4 MiB", 0, 0, 0}}, "short.RequestedBytes should be an unsigned integer"},
		"terms left out":           {[]any{"welcome", []any{"s1", []any{}}}, "welcome.Terms has 0 fields, not 5"},
		"a negative number":        {[]any{"shrink", []any{-1, 0}}, "shrink.Bytes should be an unsigned integer"},
		"a float":                  {[]any{"shrink", []any{1.5, 0}}, "shrink.Bytes should be an unsigned integer"},
		"nil for a text":           {[]any{"bye", []any{nil}}, "bye.Reason should be text"},
		"nil for a list":           {[]any{"outcome", []any{1, 1, "equal", nil}}, "outcome.Notes should be an array"},
		"a number for a text":      {[]any{"bye", []any{7}}, "bye.Reason should be text"},
		"a text for a number":      {[]any{"shrink", []any{"7", 0}}, "shrink.Bytes should be an unsigned integer"},
		"a text that is no text":   {[]any{"bye", []any{"\xff\xfe"}}, "bye.Reason is not valid UTF-8"},
		"a message without name":   {[]any{[]any{}, []any{}}, "frame.name should be text"},
		"a list as the message":    {[]any{"bye", "reason"}, "bye should be an array"},
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

func TestAMessageHasOneWayToBeWritten(t *testing.T) {
	numbers := append(begin("shrink"), 0x92)
	reason := append(begin("bye"), 0x91)
	tests := map[string]struct{ start, rest []byte }{
		"7 in one byte of its own":        {numbers, []byte{0xcc, 0x07, 0x00}},
		"7 in two bytes":                  {numbers, []byte{0xcd, 0x00, 0x07, 0x00}},
		"255 in two bytes":                {numbers, []byte{0xcd, 0x00, 0xff, 0x00}},
		"65535 in four bytes":             {numbers, []byte{0xce, 0x00, 0x00, 0xff, 0xff, 0x00}},
		"2^32-1 in eight bytes":           {numbers, []byte{0xcf, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x00}},
		"a text's length in one byte":     {reason, []byte{0xd9, 0x01, 'x'}},
		"a text's length in two bytes":    {reason, []byte{0xda, 0x00, 0x01, 'x'}},
		"a text's length in four bytes":   {reason, []byte{0xdb, 0x00, 0x00, 0x00, 0x01, 'x'}},
		"an array's length in two bytes":  {begin("bye"), []byte{0xdc, 0x00, 0x01, 0xa0}},
		"an array's length in four bytes": {begin("bye"), []byte{0xdd, 0x00, 0x00, 0x00, 0x01, 0xa0}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(append(bytes.Clone(test.start), test.rest...))
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "shortest form") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWhatWouldBeRefusedIsNotWritten(t *testing.T) {
	for want, message := range map[string]Message{
		"bye.Reason is not valid UTF-8": &Bye{Reason: "\xff"},
		"above 1048576 values":          &Report{StallNS: make([]uint64, MaxValues)},
	} {
		if _, err := Encode(message); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, not %q", err, want)
		}
	}
}

// costly are the frames that take most memory for their size, with as many values as the guard lets through.
func costly() map[string][]byte {
	many := func(start []byte, each []byte, values int, rest ...byte) []byte {
		count := (MaxValues - 64) / values
		body := binary.BigEndian.AppendUint32(append(start, 0xdd), uint32(count))
		return append(append(body, bytes.Repeat(each, count)...), rest...)
	}
	manifest := append(begin("manifest"), 0x99, 0xa0, 0x94, 0xa0, 0xa0, 0, 0xa0, 0xc2, 0, 0, 0, 0, 0)
	return map[string][]byte{
		"texts":   many(append(begin("outcome"), 0x94, 0, 0, 0xa0), []byte{0xa0}, 1),
		"numbers": many(append(begin("measured"), 0x9a), []byte{1}, 1, 0x90, 0x90, 0x90, 0, 0, 0, 0, 0, 0x90),
		"units":   many(manifest, []byte{0x96, 0xa0, 0xa0, 0, 0, 0x90, 0x90}, 7),
		"pages":   many(append(begin("plan"), 0x9c, 0, 0), []byte{0x93, 0x90, 0, 0xa0}, 4, 0x90, 0, 0x90, 0, 0, 0, 0, 0, 0),
	}
}

func TestTheCostliestFramesTakeFewMegabytes(t *testing.T) {
	for name, body := range costly() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Decode(body)
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			if spent := after.TotalAlloc - before.TotalAlloc; spent > 64<<20 {
				t.Errorf("%d MiB were allocated for %d KiB", spent>>20, len(body)>>10)
			}
		})
	}
}

func TestAFrameOfAMillionValuesIsTooMany(t *testing.T) {
	body := append(append(begin("outcome"), 0x94, 0, 0, 0xa0), 0xdd, 0x00, 0x20, 0x00, 0x00)
	body = append(body, bytes.Repeat([]byte{0xa0}, 1<<21)...)
	if _, err := Decode(body); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

func largePlan() *Plan {
	plan := &Plan{}
	for i := range uint64(10_000) {
		plan.Pages = append(plan.Pages, Page{Units: []uint64{i}, Bytes: 1 << 20, Placement: "streamed"})
		plan.Copies = append(plan.Copies, Copy{Page: i, Offset: i << 20, First: i, Last: i, After: 3})
	}
	return plan
}

func benchmark(b *testing.B, do func(body []byte) error) {
	frame, err := Encode(largePlan())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if err := do(frame[headerSize:]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeALargePlan(b *testing.B) {
	benchmark(b, func(body []byte) error { _, err := Decode(body); return err })
}

func BenchmarkInspectALargePlan(b *testing.B) {
	benchmark(b, func(body []byte) error { _, err := inspect(body); return err })
}

func BenchmarkEncodeALargePlan(b *testing.B) {
	plan := largePlan()
	benchmark(b, func([]byte) error { _, err := Encode(plan); return err })
}
