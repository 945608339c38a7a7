package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestARunIsDrawn(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string][]string{
		"page":  {"Copies, RAM to card", "Card computes", "above what this", "Look at"},
		"chunk": {"stays on the card", "stays in RAM, the CPU computes", "CPU computes", "the chunk&#39;s capacity", "Look at"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			folder := t.TempDir()
			trace := filepath.Join(folder, "trace.json")
			out := p.run("run", net, "--mode", mode, "--vram", "40%", "--json", "--trace", trace)
			if out.code != 0 {
				t.Fatalf("exit code %d: %s", out.code, out.stderr)
			}
			file := filepath.Join(folder, "run.json")
			if err := os.WriteFile(file, []byte(out.stdout), 0o600); err != nil {
				t.Fatal(err)
			}
			if drawn := p.run("report", file); drawn.code != 0 {
				t.Fatalf("exit code %d: %s", drawn.code, drawn.stderr)
			}
			page, err := os.ReadFile(filepath.Join(folder, "run.html"))
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range append(want, net, "simulated", "bit for bit") {
				if !strings.Contains(string(page), word) {
					t.Errorf("the page says nothing of %q", word)
				}
			}
			if text, err := os.ReadFile(trace); err != nil || !json.Valid(text) {
				t.Errorf("the trace: %v", err)
			}
			p.clean()
		})
	}
}

// What takes longer than any time that is counted is not drawn, whether the answer has a curve or not.
func TestAnAbsurdAnswerIsNotDrawn(t *testing.T) {
	p := newPlace(t)
	answer := p.run("plan", "--json", "--vram", "75%", write(t, "manifest.json", manifest))
	for _, curve := range []string{"", "[]"} {
		var lie map[string]json.RawMessage
		if err := json.Unmarshal([]byte(answer.stdout), &lie); err != nil {
			t.Fatal(err)
		}
		lie["machine"] = json.RawMessage(`{"link": {"bytes_per_second": 1}}`)
		if curve != "" {
			lie["curve"] = json.RawMessage(curve)
		}
		text, err := json.Marshal(lie)
		if err != nil {
			t.Fatal(err)
		}
		out := p.run("report", write(t, "answer.json", string(text)))
		if out.code != 2 || out.stdout != "" || !strings.Contains(out.stderr, "answer.json: units[0] (7): ") {
			t.Errorf("exit code %d: %s%s", out.code, out.stdout, out.stderr)
		}
	}
	p.clean()
}
