package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/optimem/optimem/planner/contract"
)

// answer is what plan --json prints, as far as it is looked at here.
type answer struct {
	PeriodNS      int64   `json:"period_ns"`
	BoundNS       int64   `json:"bound_ns"`
	Gap           float64 `json:"gap"`
	FirstNS       int64   `json:"first_forward_ns"`
	BudgetBytes   int64   `json:"budget_bytes"`
	ArenaBytes    int64   `json:"arena_bytes"`
	ResidentBytes int64   `json:"resident_bytes"`
	Estimated     bool    `json:"estimated"`
	Pages         []struct {
		Units     []any  `json:"units"`
		Bytes     int64  `json:"bytes"`
		Placement string `json:"placement"`
	} `json:"pages"`
	Curve []json.RawMessage `json:"curve"`
	Notes []string          `json:"notes"`
}

// plan runs plan --json and wants one answer and nothing else.
func (p place) plan(args ...string) answer {
	p.t.Helper()
	out := p.run(append([]string{"plan", "--json"}, args...)...)
	var got answer
	if err := json.Unmarshal([]byte(out.stdout), &got); err != nil || out.code != 0 {
		p.t.Fatalf("exit code %d, %v\nstdout: %s\nstderr: %s", out.code, err, out.stdout, out.stderr)
	}
	if got.PeriodNS < got.BoundNS || got.ArenaBytes+got.ResidentBytes > got.BudgetBytes || len(got.Pages) == 0 {
		p.t.Errorf("this is no plan: %+v", got)
	}
	return got
}

// asked runs plan with stdin.
func (p place) asked(stdin string, args ...string) run {
	p.t.Helper()
	cmd := p.command(p.t.Context(), append([]string{"plan", "-"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	_ = cmd.Run()
	return run{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

const manifest = `{"model": "three", "units": [{"id": 7, "bytes": 400000000, "compute_ns": 12000000},
	{"id": 8, "bytes": 400000000, "compute_ns": 12000000}, {"id": 9, "bytes": 400000000, "compute_ns": 12000000}]}`

func TestAManifestIsPlanned(t *testing.T) {
	p := newPlace(t)
	path := write(t, "manifest.json", manifest)
	got := p.plan(path, "--vram", "75%", "--link", "pcie4x16", "--pages-as-given")
	if got.BoundNS != 36_000_000 || len(got.Pages) != 3 || got.Pages[2].Units[0] != 9.0 || got.BudgetBytes != 900_000_000 || got.Estimated {
		t.Errorf("%+v", got)
	}
	machine := write(t, "machine.json", `{"budget_bytes": 1200000000, "link": {"latency_ns": 0, "bytes_per_second": 12000000000}}`)
	if got := p.plan(path, "--machine", machine); got.PeriodNS != 36_000_000 || got.Gap != 0 {
		t.Errorf("all of it fits: %+v", got)
	}
	out := p.run("plan", path, "--vram", "75%", "--link", "12GB/s")
	for _, word := range []string{"three", "resident", "streamed", "period", "bound", "first forward", "bottleneck", "this plan", "+25 %"} {
		if out.code != 0 || !strings.Contains(out.stdout, word) {
			t.Errorf("exit code %d, nothing is said of %q: %s%s", out.code, word, out.stdout, out.stderr)
		}
	}
	p.clean()
}

func TestARequestOnStdinIsAnsweredAsTheLibraryDoes(t *testing.T) {
	p := newPlace(t)
	request := `{"manifest": ` + manifest + `, "machine": {"free_bytes": 900000000}, "options": {"mode": "auto", "curve": ["50%"]}}`
	want, err := contract.Respond([]byte(request))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.asked(request, "--json"); got.code != 0 || got.stdout != string(want) {
		t.Errorf("exit code %d: %s%s\nwant %s", got.code, got.stdout, got.stderr, want)
	}
}

// seven writes the header of a 7 B model, and a file of its length that takes no room.
func seven(t *testing.T) string {
	t.Helper()
	var entries []string
	at := 0
	add := func(name string, rows, columns int) {
		end := at + 2*rows*columns
		entries = append(entries, fmt.Sprintf(`%q: {"dtype": "BF16", "shape": [%d, %d], "data_offsets": [%d, %d]}`, name, rows, columns, at, end))
		at = end
	}
	add("model.embed_tokens.weight", 32000, 4096)
	for layer := range 32 {
		for _, part := range []string{"q", "k", "v", "o"} {
			add(fmt.Sprintf("model.layers.%d.self_attn.%s_proj.weight", layer, part), 4096, 4096)
		}
		for _, part := range []string{"gate", "up", "down"} {
			add(fmt.Sprintf("model.layers.%d.mlp.%s_proj.weight", layer, part), 11008, 4096)
		}
	}
	add("lm_head.weight", 32000, 4096)
	header := "{" + strings.Join(entries, ", ") + "}"
	path := write(t, "seven.safetensors", string(binary.LittleEndian.AppendUint64(nil, uint64(len(header))))+header)
	if err := os.Truncate(path, int64(8+len(header)+at)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAHeaderAloneIsPlannedWithoutPython(t *testing.T) {
	t.Setenv("OPTIMEM_PYTHON", "/no/such/python")
	p := newPlace(t)
	path := seven(t)
	got := p.plan(path, "--vram", "50%", "--link", "pcie4x16")
	if floor := int64(13_476_000_000/2) * 1_000_000_000 / 25_000_000_000; got.BoundNS < floor*98/100 || float64(got.PeriodNS) > 1.05*float64(floor) {
		t.Errorf("half of 13.5 GB takes %d ns, bound %d, want about %d", got.PeriodNS, got.BoundNS, floor)
	}
	if notes := strings.Join(got.Notes, "\n"); !got.Estimated || !strings.Contains(notes, "the link's part alone") {
		t.Errorf("nobody says what is not known: %s", notes)
	}
	if decoded := p.plan(path, "--vram", "50%", "--reuse", "1"); decoded.PeriodNS <= got.PeriodNS {
		t.Errorf("computation takes no time: %d ns", decoded.PeriodNS)
	}
	out := p.run("plan", path, "--vram", "6GiB", "--reuse", "512", "--device", "sim:rtx4090")
	if out.code != 0 || !strings.Contains(out.stdout, "(estimated)") || !strings.Contains(out.stdout, "RTX 4090") {
		t.Errorf("exit code %d: %s%s", out.code, out.stdout, out.stderr)
	}
	p.clean()
}

func TestAModelIsRecordedAndPlanned(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	folder := t.TempDir()
	ran := p.json("run", net, "--device", "sim", "--vram", "50%", "--forwards", "2")
	out := p.run("plan", net, "--device", "sim", "--vram", "50%", "--json")
	var got answer
	if err := json.Unmarshal([]byte(out.stdout), &got); err != nil || out.code != 0 {
		t.Fatalf("exit code %d, %v: %s", out.code, err, out.stderr)
	}
	if near := float64(got.PeriodNS) / float64(*ran.PredictedNS); near < 0.95 || near > 1.05 {
		t.Errorf("planned %d ns, a run predicts %d", got.PeriodNS, *ran.PredictedNS)
	}
	if got.BudgetBytes != ran.BudgetBytes || !strings.Contains(strings.Join(got.Notes, "\n"), "simulated") {
		t.Errorf("a budget of %d, a run has %d: %v", got.BudgetBytes, ran.BudgetBytes, got.Notes)
	}
	file := filepath.Join(folder, "plan.json")
	if err := os.WriteFile(file, []byte(out.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if drawn := p.run("report", file); drawn.code != 0 {
		t.Errorf("the report: %s", drawn.stderr)
	}
	p.clean()
}

func TestAutoKnowsWhatTheCPUTakes(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	mixed := p.plan(net, "--device", "sim", "--vram", "30%", "--mode", "auto")
	onCPU := 0
	for _, page := range mixed.Pages {
		if page.Placement == "cpu" {
			onCPU++
		}
	}
	if onCPU == 0 || onCPU == len(mixed.Pages) {
		t.Errorf("%d of %d pages are computed on the CPU", onCPU, len(mixed.Pages))
	}
	if notes := strings.Join(mixed.Notes, "\n"); strings.Contains(notes, "no step has a time on the CPU") {
		t.Error(notes)
	}
	p.clean()
}

func TestPlanTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	path := write(t, "manifest.json", manifest)
	cut := write(t, "cut.safetensors", "\x40\x00\x00\x00\x00\x00\x00\x00{\"a\": {")
	for want, args := range map[string][]string{
		"units[1].bytes":             {write(t, "bad.json", `{"units": [{"bytes": 1}, {"bytes": -1}]}`), "--vram", "50%"},
		"the header says it has 64":  {cut, "--vram", "50%"},
		"is too small":               {path, "--vram", "1MiB"},
		"there is no budget":         {path},
		"says nothing to a manifest": {path, "--vram", "50%", "--reuse", "2"},
		"--link: a forward that":     {path, "--vram", "50%", "--link", "1"},
		"manifest.version: 2":        {write(t, "later.json", `{"manifest": {"version": 2, "warp": 9}}`)},
		"is no regular file":         {"/dev/zero", "--vram", "50%"},
	} {
		out := p.run(append([]string{"plan", "--json"}, args...)...)
		if out.code != 2 || out.stdout != "" || !strings.Contains(out.stderr, want) {
			t.Errorf("exit code %d, stdout %q, stderr %q, want %q", out.code, out.stdout, out.stderr, want)
		}
	}
	p.fails(2, []string{"where it runs as it is"}, "plan", net, "--vram", "50%", "--device", "cpu")
	p.fails(2, []string{"is a script"}, "plan", write(t, "script.py", script), "--vram", "50%")
}
