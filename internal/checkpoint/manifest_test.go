package checkpoint

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/optimem/optimem/internal/safetensors"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/contract"
	"github.com/optimem/optimem/simgpu"
)

// layout puts tensors of fp16 behind each other, in the order of their names as given.
func layout(shapes map[string][]int64, names ...string) (out []safetensors.Tensor) {
	at := int64(0)
	for _, name := range names {
		n := int64(1)
		for _, side := range shapes[name] {
			n *= side
		}
		out = append(out, safetensors.Tensor{Name: name, Type: "F16", Shape: shapes[name], Elements: n, Begin: at, End: at + 2*n})
		at += 2 * n
	}
	return out
}

func guess(t *testing.T, reuse int64) Guess {
	t.Helper()
	card, err := simgpu.LoadCard("rtx4090")
	if err != nil {
		t.Fatal(err)
	}
	host, err := simgpu.LoadHost("desktop")
	if err != nil {
		t.Fatal(err)
	}
	return Guess{Card: card, Host: host, Reuse: reuse}
}

func paths(m planner.Manifest) (out []string) {
	for _, u := range m.Units {
		out = append(out, u.Path)
	}
	return out
}

func TestModulesAreInTheOrderInWhichTheyAreRead(t *testing.T) {
	for name, want := range map[string][]string{
		"a language model": {"model.embed_tokens", "model.layers.2.mlp.down_proj", "model.layers.2.self_attn.q_proj", "model.layers.10.mlp.down_proj", "model.norm", "lm_head"},
		"GPT-2":            {"wpe", "wte", "h.0.attn.c_attn", "h.11.attn.c_attn", "ln_f"},
		"a ResNet":         {"conv1", "layer1.0.conv1", "layer1.0.conv2", "layer4.1.conv1", "fc"},
		"a ViT":            {"class_token", "conv_proj", "encoder.layers.encoder_layer_2.mlp", "encoder.layers.encoder_layer_10.mlp", "encoder.ln", "heads.head"},
		"a pair":           {"shared", "encoder.block.0.layer", "encoder.final_layer_norm", "decoder.block.0.layer", "decoder.final_layer_norm", "lm_head"},
	} {
		var names []string
		for _, path := range want {
			names = append([]string{path + ".weight"}, names...)
		}
		got := paths(Manifest("m", layout(nil, names...), Guess{}).Manifest)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAModuleIsOneUnitWithOneUse(t *testing.T) {
	shapes := map[string][]int64{"a.weight": {100, 3}, "a.bias": {100}, "b.weight": {7}}
	m := Manifest("m", layout(shapes, "a.bias", "a.weight", "b.weight"), Guess{})
	want := []planner.Unit{
		{Path: "a", Readers: []string{"a"}, Bytes: 768 + 256, Parameters: 400, Uses: []planner.Use{{First: 0, Last: 0}}},
		{Path: "b", Readers: []string{"b"}, Bytes: 256, Parameters: 7, Uses: []planner.Use{{First: 1, Last: 1}}},
	}
	if diff := cmp.Diff(want, m.Units); diff != "" {
		t.Error(diff)
	}
	if err := m.Check(); err != nil || !m.Estimated || m.Steps[0] != (planner.Step{}) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestTiedWeightsCountOnceAndAreUsedTwice(t *testing.T) {
	shapes := map[string][]int64{"embed.weight": {50, 8}, "layers.0.weight": {8, 8}}
	tensors := layout(shapes, "embed.weight", "layers.0.weight")
	tied := tensors[0]
	tied.Name = "lm_head.weight"
	m := Manifest("m", append(tensors, tied), Guess{})
	want := planner.Unit{
		Path: "embed", Readers: []string{"embed", "lm_head"}, Bytes: 1024, Parameters: 400, Uses: []planner.Use{{First: 0, Last: 0}, {First: 2, Last: 2}},
	}
	if diff := cmp.Diff(want, m.Units[0]); diff != "" || len(m.Units) != 2 {
		t.Errorf("%d units, %s", len(m.Units), diff)
	}
}

func TestTimesAreEstimatedByTheCard(t *testing.T) {
	shapes := map[string][]int64{"embed_tokens.weight": {32000, 4096}, "layers.0.weight": {4096, 4096}}
	tensors := layout(shapes, "embed_tokens.weight", "layers.0.weight")
	once, often := Manifest("m", tensors, guess(t, 1)), Manifest("m", tensors, guess(t, 4096))
	card := guess(t, 1).Card
	const size = 2 * 4096 * 4096
	if least := planner.Nanoseconds(1e9 * size / card.Rates.Bytes); once.Steps[1].Compute < least || once.Steps[1].Compute > least+3*planner.Nanoseconds(card.Rates.CallNS) {
		t.Errorf("reading %d bytes once takes %v", size, once.Steps[1].Compute)
	}
	if least := planner.Nanoseconds(1e9 * size * 4096 / card.Rates.FLOPS["fp16"]); often.Steps[1].Compute < least {
		t.Errorf("%d operations take %v, less than %v", size*4096, often.Steps[1].Compute, least)
	}
	if once.Steps[0].Compute > once.Steps[1].Compute/4 {
		t.Errorf("one row of a table takes %v", once.Steps[0].Compute)
	}
	if once.Steps[1].CPU <= once.Steps[1].Compute {
		t.Errorf("the CPU takes %v, the card %v", once.Steps[1].CPU, once.Steps[1].Compute)
	}
	if notes := strings.Join(once.Notes, "\n"); !strings.Contains(notes, "estimates") || !strings.Contains(notes, "RTX 4090") {
		t.Error(notes)
	}
	if machine := guess(t, 1).Machine(); machine.Free != 24<<30 || machine.Link.Rate != 25_000_000_000 || machine.Host.Rate == 0 {
		t.Errorf("%+v", machine)
	}
}

func TestTheSameCheckpointTakesTheSameTime(t *testing.T) {
	var tensors []safetensors.Tensor
	elements := map[safetensors.DType]int64{"F64": 240e6, "F32": 15e9, "F16": 30e9, "BF16": 31e9, "I8": 32e9} // a day or so for each
	for i, kind := range []safetensors.DType{"F64", "F32", "F16", "BF16", "I8"} {
		n := elements[kind]
		tensors = append(tensors, safetensors.Tensor{Name: "a." + string(kind), Type: kind, Shape: []int64{n}, Elements: n, Begin: int64(i) << 30, End: int64(i)<<30 + n})
	}
	for reuse := int64(1 << 28); reuse < 1<<28+40; reuse++ {
		want := Manifest("m", tensors, guess(t, reuse))
		for range 50 {
			if diff := cmp.Diff(want.Steps, Manifest("m", tensors, guess(t, reuse)).Steps); diff != "" {
				t.Fatal(diff)
			}
		}
	}
}

func TestALinkIsCalledTheSameInPlansAndOnTheSimulatedCard(t *testing.T) {
	for generation := 3; generation <= 5; generation++ {
		for _, width := range []int{1, 2, 4, 8, 16} {
			link, known := simgpu.LinkOf(generation, width)
			got, err := contract.ParseLink(link.String())
			if want := (planner.Link{Latency: planner.Nanoseconds(link.LatencyNS), Rate: planner.Bytes(link.Pinned)}); !known || err != nil || got != want {
				t.Errorf("%v: %+v, %v; the simulated card has %+v", link, got, err, want)
			}
		}
	}
}
