package simgpu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryCardAndHostIsRead(t *testing.T) {
	if len(Cards()) < 10 {
		t.Errorf("only %v", Cards())
	}
	for _, name := range Cards() {
		card, err := LoadCard(name)
		if err != nil || card.Key != name || card.MemoryBytes < 10<<30 || card.Link.Pinned < 10e9 || card.Rates.Bytes < 100e9 {
			t.Errorf("%s: %+v, %v", name, card, err)
		}
	}
	for _, name := range []string{"desktop", "server"} {
		if host, err := LoadHost(name); err != nil || host.Rates.CallNS == 0 {
			t.Errorf("%s: %+v, %v", name, host, err)
		}
	}
}

func TestTheTimeOfAnOperationIsThatOfItsSlowerPart(t *testing.T) {
	r := Rates{FLOPS: map[string]float64{"fp32": 1e12, "fp16": 2e12}, Bytes: 1e9, CallNS: 7}
	for name, test := range map[string]struct {
		operations map[string]float64
		bytes      float64
		want       int64
	}{
		"nothing costs the call":                        {want: 7},
		"computation is the slower part":                {map[string]float64{"fp16": 2e9}, 1e3, 1_000_007},
		"memory is the slower part":                     {map[string]float64{"fp32": 1e6}, 1e6, 1_000_007},
		"without a unit for fp8 it is computed in fp16": {map[string]float64{"fp8": 2e9}, 0, 1_000_007},
		"without a unit for bf16 in fp32":               {map[string]float64{"bf16": 1e9}, 0, 1_000_007},
		"a part of a nanosecond counts whole":           {map[string]float64{"fp32": 1}, 0, 8},
	} {
		if got := r.Time(test.operations, test.bytes); got != test.want {
			t.Errorf("%s: %d ns, want %d", name, got, test.want)
		}
	}
}

func TestACardOfOnesOwn(t *testing.T) {
	text, err := files.ReadFile(folder + "/profiles/rtx4090.json")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mine.json")
	for change, want := range map[string]string{
		"x=>x": "", "\"memory_bytes\": 25769803776=>\"memory_bytes\": 0": "memory_bytes: 0 is out of range",
		"\"generation\": 4=>\"generation\": 9": "PCIe 9 x16 is not known", "\"generation\": 4=>\"generation\": 4.5": "PCIe 4.5 x16 is not known",
		"\"fp64\"=>\"fp65\"": "flops.fp64: 0 is out of range", "\"launch_ns\"=>\"lunch_ns\"": "lunch_ns: there is no such field",
		"{=>": "JSON object", "0.96=>96": "efficiency.compute: 96 is out of range",
	} {
		old, replaced, _ := strings.Cut(change, "=>")
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, replaced, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		card, err := LoadCard(path)
		if want == "" && (err != nil || card.Key != "mine") {
			t.Errorf("%+v, %v", card, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", change, err)
		}
	}
	for _, name := range []string{"rtx9999", filepath.Join(t.TempDir(), "none.json")} {
		if _, err := LoadCard(name); err == nil {
			t.Errorf("%s was found", name)
		}
	}
}

func TestTheTimeOfAnOperationIsTheSameEveryTime(t *testing.T) {
	r := Rates{FLOPS: map[string]float64{"fp64": 0.7e9, "fp32": 1.3e9, "fp16": 2.9e9, "bf16": 3.1e9, "int8": 5.3e9}, Bytes: 1e9}
	for n := 1.5e15; n < 1.6e15; n += 1e13 / 3 { // times of some days, where the last bit of a sum is a nanosecond
		operations := map[string]float64{"fp64": n / 7, "fp32": n / 11, "fp16": n / 13, "bf16": n / 17, "int8": n / 19}
		want := r.Time(operations, 0)
		for range 50 {
			if got := r.Time(operations, 0); got != want {
				t.Fatalf("%v took %d ns, then %d", operations, want, got)
			}
		}
	}
}
