package ipc

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/golden")

// vectors are messages whose bytes both sides are tested with: a usual one of each type, and some at the ends of every range.
func vectors() map[string]Message {
	long := strings.Repeat("ä", 200)
	return map[string]Message{
		"hello": &Hello{
			Protocol: Version, Python: "3.11.7", Torch: "2.15.0+cu132",
			Device: Device{Kind: "cuda", Index: 1, UUID: "GPU-6a1c", Name: "NVIDIA L40", TotalBytes: 48 << 30, FreeBytes: 47 << 30},
		},
		"hello_extreme": &Hello{
			Protocol: math.MaxUint64, Python: long, Device: Device{Index: 1 << 32, TotalBytes: 255, FreeBytes: 256, Simulated: true},
		},
		"welcome": &Welcome{Session: "s1", Terms: Terms{
			PlanningNS: 60_000_000_000, WritingNS: uint64(SendGrace), FrameBytes: MaxFrame, FrameValues: MaxValues, TimedForwards: 3,
		}},
		"welcome_empty": &Welcome{},
		"welcome_extreme": &Welcome{Session: long, Terms: Terms{
			PlanningNS: math.MaxUint64, WritingNS: math.MaxUint64, FrameBytes: math.MaxUint64, FrameValues: math.MaxUint64,
			TimedForwards: math.MaxUint64,
		}},
		"manifest": &Manifest{
			Model: "ResNet", Wish: Wish{Mode: "page", VRAM: "25%", MaxLayerSize: 1000, MaxCapacity: ""}, Recorded: true,
			WeightsBytes: 178_195_616, KeptBytes: 65_536, BufferBytes: 422_000, Calls: 347, Steps: 3,
			Units: []Unit{
				{Path: "conv1", Kind: "Conv2d", Bytes: 37632, Parameters: 9408, Readers: []string{"conv1"}, Uses: []Use{{First: 1, Last: 1}}},
				{Path: "fc", Kind: "Linear", Bytes: 8196096, Parameters: 2049000, Readers: []string{"fc", ""}, Uses: []Use{{First: 0, Last: 0}, {First: 2, Last: 2}}},
			},
		},
		"manifest_registered": &Manifest{Model: "Stack", Wish: Wish{Mode: "chunk", MaxCapacity: "2GiB"}, Units: []Unit{{Path: "a.weight", Bytes: 256, Parameters: 64}}},
		"measured": &Measured{
			StepComputeNS: []uint64{120, 65_536, 1 << 40}, StepActivations: []uint64{0, 127, 128}, StepCrossings: []uint64{1, 2, 3},
			LinkLatencyNS: 10_000, LinkBytesPerSecond: 12_000_000_000, FreeBytes: math.MaxInt64,
			CrossingLatencyNS: 38_000, CrossingBytesPerSecond: 3_000_000_000, Held: []uint64{0, 2, 127, 128},
		},
		"measured_cpu": &Measured{StepCPUNS: []uint64{1, 2, math.MaxUint64}},
		"plan": &Plan{
			Version: 1, Answers: 2,
			Pages: []Page{
				{Units: []uint64{0, 1}, Bytes: 1 << 20, Placement: "streamed"}, {Units: []uint64{2}, Bytes: 1 << 19, Placement: "resident"},
				{Units: []uint64{3}, Bytes: 256, Placement: "unread"},
			},
			Copies: []Copy{{Page: 0, Offset: 512, First: 0, Last: 3, After: 1}, {Page: 0, Offset: 0, First: 0, Last: 3, After: 1}}, Laps: 2,
			Eviction: []uint64{1}, ArenaBytes: 1<<20 + 512, ResidentBytes: 1 << 19, BudgetBytes: 2 << 20, ReserveBytes: 1 << 16,
			PeriodNS: 12_400_000, BoundNS: 12_100_000,
		},
		"measured_numbers": &Measured{
			StepComputeNS: []uint64{
				0, 127, 128, 255, 256, math.MaxUint16, math.MaxUint16 + 1, math.MaxInt32, math.MaxInt32 + 1,
				math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64 - 1, math.MaxUint64, 1,
			},
			StepCPUNS: make([]uint64, 15), LinkLatencyNS: math.MaxUint64, LinkBytesPerSecond: math.MaxUint64, FreeBytes: math.MaxUint64,
			CrossingLatencyNS: math.MaxUint64, CrossingBytesPerSecond: math.MaxUint64, Held: []uint64{math.MaxUint64},
		},
		"plan_extreme": &Plan{
			Version: math.MaxUint64, Answers: math.MaxUint64, Pages: []Page{{Bytes: math.MaxUint64}, {Units: []uint64{math.MaxUint64}, Placement: long}},
			Copies:   []Copy{{}, {Page: math.MaxUint64, Offset: math.MaxUint64, First: math.MaxUint64, Last: math.MaxUint64, After: math.MaxUint64}},
			Laps:     math.MaxUint64,
			Eviction: []uint64{math.MaxUint64}, ArenaBytes: math.MaxUint64, ResidentBytes: math.MaxUint64, BudgetBytes: math.MaxUint64,
			ReserveBytes: math.MaxUint64, PeriodNS: math.MaxUint64, BoundNS: math.MaxUint64,
		},
		"shrink_extreme": &Shrink{Bytes: math.MaxUint64, WithinNS: math.MaxUint64},
		"plan_empty":     &Plan{},
		"refused":        &Refused{Answers: 2, Code: CodeBadInput, Text: "a budget of 1.0 MiB is too small by 8.0 MiB"},
		"short":          &Short{RequestedBytes: 10 << 20, FreeBytes: 3 << 20, WeightsBytes: 4 << 20, ActivationBytes: 30 << 20},
		"short_extreme":  &Short{RequestedBytes: math.MaxUint64, FreeBytes: math.MaxUint64, WeightsBytes: math.MaxUint64, ActivationBytes: math.MaxUint64},
		"report":         &Report{PlanVersion: 1, Forwards: 7, PeriodNS: 12_500_000, StallNS: []uint64{0, 31_000}, H2DBytes: 1 << 33, Misses: 2, DeviceBytes: 5, DevicePeakBytes: 6, ActivationBytes: 7, PinnedBytes: 8},
		"outcome":        &Outcome{Forwards: 8, PlainPeriodNS: 8_150_000, Equal: "equal", Notes: []string{"cosine of two sentences alike 0.55"}},
		"shrink":         &Shrink{Bytes: 1 << 30, WithinNS: 50_000_000},
		"outcome_texts":  &Outcome{Equal: long, Notes: append(texts(31, 32, 255, 256), make([]string, 12)...)},
		"stop":           &Stop{Reason: "the user pressed Ctrl-C"},
		"failure":        &Failure{Code: CodeBadInput, Text: "the largest page, layer4.0.conv2, takes 9.0 MiB"},
		"bye":            &Bye{Reason: "détaché"},
		"bye_long_text":  &Bye{Reason: strings.Repeat(long, 170)},
	}
}

// texts are one of every length, in bytes.
func texts(lengths ...int) []string {
	out := make([]string, len(lengths))
	for i, length := range lengths {
		out[i] = strings.Repeat("t", length)
	}
	return out
}

func TestGoldenVectorsAreWrittenAndReadAlike(t *testing.T) {
	for name, message := range vectors() {
		t.Run(name, func(t *testing.T) {
			frame, err := Encode(message)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "golden", name)
			if *update {
				write(t, path, message, frame)
			}
			want, err := os.ReadFile(path + ".hex")
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(frame); got != strings.TrimSpace(string(want)) {
				t.Errorf("wrote %s, not %s", got, want)
			}
			read, err := Decode(frame[headerSize:])
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path + ".json")
			if err != nil {
				t.Fatal(err)
			}
			if got := twin(t, read); got != string(text) {
				t.Errorf("read back %s, not %s", got, text)
			}
		})
	}
}

// twin is a message as JSON, lists never null.
func twin(t *testing.T, message Message) string {
	t.Helper()
	text, err := json.MarshalIndent(withoutNil(reflect.ValueOf(message).Elem()), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

func write(t *testing.T, path string, message Message, frame []byte) {
	t.Helper()
	for end, text := range map[string]string{".json": twin(t, message), ".hex": hex.EncodeToString(frame) + "\n"} {
		if err := os.WriteFile(path+end, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryMessageHasAVector(t *testing.T) {
	seen := map[string]bool{}
	for _, message := range vectors() {
		frame, err := Encode(message)
		if err != nil {
			t.Fatal(err)
		}
		name, err := inspect(frame[headerSize:])
		if err != nil {
			t.Fatal(err)
		}
		seen[name] = true
	}
	for name := range messages {
		if !seen[name] {
			t.Errorf("%s has none", name)
		}
	}
}

func TestNoVectorIsLeftOver(t *testing.T) {
	files, err := os.ReadDir(filepath.Join("testdata", "golden"))
	if err != nil {
		t.Fatal(err)
	}
	known := vectors()
	for _, file := range files {
		if name := strings.TrimSuffix(file.Name(), filepath.Ext(file.Name())); known[name] == nil {
			t.Errorf("%s is of no vector: remove it", file.Name())
		}
	}
}
