package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/optimem/optimem/bindings"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/contract"
	"github.com/optimem/optimem/planner/search"
)

// Five layers, of which one is used twice and one never.
const layers = `{"model": "five layers",
 "steps": [{"compute_ns": 900000, "activation_bytes": 1048576}, {"compute_ns": 700000}, {"compute_ns": 400000}, {"compute_ns": 900000}],
 "units": [{"id": "a", "bytes": 16777216, "uses": [[0, 0], [3, 3]]}, {"id": "b", "bytes": 33554432, "uses": [[1, 1]]},
           {"id": "c", "bytes": 8388608, "uses": [[2, 2]]}, {"id": "d", "bytes": 16777216, "uses": [[3, 3]]}, {"id": "e", "bytes": 4096}]}`

// planned writes a manifest and calls plan with it.
func planned(t *testing.T, manifest string, args ...string) said {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.json")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	return call(t, append([]string{"plan", path}, args...)...)
}

// asked calls plan with stdin.
func asked(t *testing.T, stdin string, args ...string) said {
	t.Helper()
	var out, err screen
	code := execute(t.Context(), append([]string{"plan", "-"}, args...), stdio{in: strings.NewReader(stdin), out: &out, err: &err})
	return said{code, out.text.String(), err.text.String()}
}

// saved writes a checkpoint of fp16 matrices whose weights the disk does not hold.
func saved(t *testing.T, sides ...int64) string {
	t.Helper()
	var entries []string
	at := int64(0)
	for i, side := range sides {
		end := at + 2*side*side
		entries = append(entries, fmt.Sprintf(`"layers.%d.weight": {"dtype": "F16", "shape": [%d, %d], "data_offsets": [%d, %d]}`, i, side, side, at, end))
		at = end
	}
	header := "{" + strings.Join(entries, ", ") + "}"
	path := filepath.Join(t.TempDir(), "matrices.safetensors")
	text := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(len(text))+at); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPlansForPeople(t *testing.T) {
	for name, got := range map[string]said{
		"plan_page":      planned(t, layers, "--vram", "60%", "--link", "pcie4x16"),
		"plan_bytes":     planned(t, layers, "--vram", "51MiB"),
		"plan_all":       planned(t, layers, "--vram", "6GiB", "--link", "12GB/s"),
		"plan_as_given":  planned(t, `{"units": [{"bytes": 512, "compute_ns": 20000}, {"bytes": 512, "compute_ns": 20000}]}`, "--vram", "1MiB", "--pages-as-given"), // which would be one page
		"plan_header":    call(t, "plan", saved(t, 4096, 4096, 4096, 4096), "--vram", "70%"),
		"plan_estimated": call(t, "plan", saved(t, 4096, 4096, 4096, 4096), "--vram", "80%", "--reuse", "1", "--device", "sim:rtx4090"),
		"plan_auto":      call(t, "plan", saved(t, 4096, 4096, 4096, 4096), "--vram", "40%", "--reuse", "1", "--mode", "auto"),
	} {
		if got.code != 0 || got.err != "" {
			t.Errorf("%s: %+v", name, got)
		}
		golden(t, name+".txt.golden", []byte(got.out))
	}
}

func TestPlansForPrograms(t *testing.T) {
	got := asked(t, layers, "--vram", "60%", "--link", "pcie4x16", "--json")
	if got.code != 0 || got.err != "" {
		t.Errorf("%+v", got)
	}
	golden(t, "plan_page.json.golden", []byte(got.out))
	if answer, err := contract.ReadAnswer([]byte(got.out)); err != nil {
		t.Error(err)
	} else if _, err := answer.Plan(); err != nil {
		t.Error(err)
	}
}

func TestARequestOnStdinGetsTheContractsBytes(t *testing.T) {
	for _, request := range []string{
		`{"manifest": ` + layers + `, "machine": {"budget_bytes": 60000000}}`,
		`{"manifest": ` + layers + `, "options": {"vram": "70%", "mode": "auto", "curve": ["50%"]}}`,
		`{"manifest": {"units": [{"bytes": 4096}]}, "machine": {"free_bytes": 100000}}`,
	} {
		want, err := contract.Respond([]byte(request))
		if err != nil {
			t.Fatal(err)
		}
		if got := asked(t, request, "--json"); got.code != 0 || got.out != string(want) {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	request := `{"manifest": ` + layers + `, "options": {"vram": "70%", "mode": "chunk", "link": "pcie3x16"}}`
	with := asked(t, request, "--json", "--vram", "80%", "--mode", "page", "--link", "pcie4x16", "--pages-as-given")
	want := asked(t, layers, "--json", "--vram", "80%", "--link", "pcie4x16", "--pages-as-given")
	if with.code != 0 || with.out != want.out {
		t.Errorf("flags do not win: %+v", with)
	}
}

func TestAMachineFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "machine.json")
	if err := os.WriteFile(path, []byte(`{"budget_bytes": 50331648, "link": {"bytes_per_second": 7000000000}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	got := planned(t, layers, "--machine", path)
	if got.code != 0 || !strings.Contains(got.out, "7.0 GB/s, 10.0 us a copy") || !strings.Contains(got.out, "48.0 MiB for weights") {
		t.Errorf("%+v", got)
	}
	got = planned(t, layers, "--machine", path, "--vram", "100%", "--link", "9GB/s")
	if got.code != 0 || !strings.Contains(got.out, "9.0 GB/s") || !strings.Contains(got.out, "72.0 MiB for weights") {
		t.Errorf("%+v", got)
	}
}

func TestPlanRecordsAModel(t *testing.T) {
	for _, mode := range []string{"page", "chunk", "auto"} {
		t.Run(mode, func(t *testing.T) {
			p := newPlace(t)
			t.Setenv(roleVariable, "success")
			got := call(t, "plan", "torchvision:resnet101", "--vram", "60%", "--mode", mode, "--python", program(t))
			if got.code != 0 || strings.Count(got.err, "times are simulated") != 1 {
				t.Errorf("%+v", got)
			}
			wanted := []string{"torchvision:resnet101", "one forward was recorded on ", "its times are simulated", "this plan"}
			if mode != "chunk" { // the worker of this test does not tell what the CPU takes
				wanted = append(wanted, " per forward (simulated)")
			}
			for _, want := range wanted {
				if !strings.Contains(got.out, want) {
					t.Errorf("nothing is said of %q: %s", want, got.out)
				}
			}
			p.left(t)
		})
	}
}

func TestPlanOfAModelThatCannotBeRecorded(t *testing.T) {
	for role, test := range map[string]struct {
		code int
		err  string
	}{
		"refuses":             {2, "no such model: resnet9000"},
		"crashes":             {1, "boom"},
		"ends before it says": {1, "without opening a session"},
		"has no optimem":      {2, "has no optimem"},
	} {
		t.Run(role, func(t *testing.T) {
			p := newPlace(t)
			t.Setenv(roleVariable, role)
			got := call(t, "plan", p.model+":build", "--vram", "60%", "--python", program(t))
			if got.code != test.code || got.out != "" || !strings.Contains(got.err, test.err) {
				t.Errorf("%+v, want %q", got, test.err)
			}
			p.left(t)
		})
	}
}

func TestWhatPlanRefuses(t *testing.T) {
	p := newPlace(t)
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.json", layers)
	matrices := saved(t, 64, 64)
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "no INPUT"},
		{[]string{good, "more"}, `one INPUT is enough, but "more" follows it`},
		{[]string{"missing.json", "--vram", "50%"}, "INPUT: stat missing.json: no such file"},
		{[]string{"missing.safetensors", "--vram", "50%"}, "no such file"},
		{[]string{p.script, "--vram", "50%"}, "is a script, which calls its model itself: give the function"},
		{[]string{"torchvision:../x", "--vram", "50%"}, "INPUT \"torchvision:../x\" names no torchvision model"},
		{[]string{"missing.py:build", "--vram", "50%"}, "INPUT: open missing.py"},
		{[]string{good}, "there is no budget: give --vram"},
		{[]string{good, "--vram", ""}, "--vram: it is empty"},
		{[]string{good, "--vram", "lots"}, `--vram: "lots" is neither`},
		{[]string{good, "--vram", "1%"}, "a budget of 737.3 KiB for weights is too small"},
		{[]string{good, "--vram", "50%", "--mode", "fast"}, `--mode: "fast" is no mode: give page, chunk or auto`},
		{[]string{good, "--vram", "50%", "--link", "pcie9"}, `--link: "pcie9" is no link`},
		{[]string{good, "--vram", "50%", "--reuse", "1"}, "--reuse says nothing to a manifest"},
		{[]string{good, "--vram", "50%", "--device", "sim"}, "--device says nothing to a manifest"},
		{[]string{good, "--vram", "50%", "--machine", "missing.json"}, "--machine: open missing.json"},
		{[]string{good, "--vram", "50%", "--machine", "-"}, "--machine -: name a file"},
		{[]string{good, "--vram", "50%", "--machine", file("bad.json", `{"link": {"latency_ns": -1}}`)}, "bad.json: link.latency_ns: -1 is negative"},
		{[]string{matrices, "--vram", "50%", "--reuse", "0"}, "--reuse 0: give from 1"},
		{[]string{matrices, "--vram", "50%", "--reuse", "x"}, "reuse"},
		{[]string{matrices, "--vram", "50%", "--size", "5x5"}, "--size says nothing to a checkpoint: nothing is run for it"},
		{[]string{matrices, "--vram", "50%", "--device", "cuda"}, "--device: a checkpoint tells no times"},
		{[]string{matrices, "--vram", "50%", "--device", "sim:rtx9999"}, `--device: there is no card "rtx9999"`},
		{[]string{"torchvision:x", "--vram", "50%", "--reuse", "3"}, "--reuse says nothing to a model: its times are recorded"},
		{[]string{"torchvision:x", "--vram", "50%", "--seed", "-3"}, "--seed -3"},
		{[]string{file("negative.json", `{"units": [{"bytes": 1}, {"bytes": -5}]}`), "--vram", "50%"}, "negative.json: units[1].bytes: -5 is negative"},
		{[]string{file("double.json", `{"units": [{"id": 3, "bytes": 1}, {"id": 3, "bytes": 5}]}`), "--vram", "50%"}, "double.json: units[1].id: 3 names units[0] too"},
		{[]string{file("unknown.json", `{"units": [{"bytes": 1, "size": 3}]}`), "--vram", "50%"}, "unknown.json: units[0].size: there is no such field"},
		{[]string{file("request.json", `{"manifest": {"units": [{"bytes": 1}]}, "machine": {"budget_bytes": -1}}`)}, "request.json: machine.budget_bytes: -1 is negative"},
		{[]string{file("slow.json", `{"manifest": {"units": [{"bytes": 5e14}, {"bytes": 5e14}]}, "machine": {"budget_bytes": 6e14, "link": {"bytes_per_second": 1}}}`)}, "slow.json: machine.link.bytes_per_second: a forward that waits"},
		{[]string{good, "--vram", "50%", "--link", "1"}, "optimemctl: --link: a forward that waits for everything"},
		{[]string{good, "--vram", "50%", "--machine", ""}, "--machine: it is empty"},
		{[]string{good, "--vram", "50%", "--machine", file("late.json", `{"link": {"latency_ns": 5e14, "bytes_per_second": 1e9}}`)}, "late.json: link.latency_ns: a forward that waits"},
		{[]string{file("largest.json", `{"units": [{"bytes": 1125899906842624}]}`), "--vram", "1000%"}, "optimemctl: --vram: 1000% of the weights is more"},
		{[]string{saved(t, 1<<20, 1<<20), "--vram", "50%", "--reuse", "1073741824"}, "optimemctl: --reuse: a forward that waits for everything"},
		{[]string{file("bom.json", "\uFEFF"+layers), "--vram", "50%"}, "bom.json: the document begins with a byte order mark"},
		{[]string{file("nested.json", `{"manifest": {"version": 2, "warp": 1}}`)}, "nested.json: manifest.version: 2 is not known"},
		{[]string{file("text.safetensors", "{}"), "--vram", "50%"}, "text.safetensors: the file has 2 bytes"},
		{[]string{file("long.safetensors", "\xff\xff\xff\x00\x00\x00\x00\x00{}"), "--vram", "50%"}, "long.safetensors: the header says it has 16777215 bytes, and the file has 2"},
		{[]string{t.TempDir(), "--vram", "50%"}, "has no .safetensors file and no index"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			got := call(t, append([]string{"plan"}, test.args...)...)
			if got.code != 2 || got.out != "" || !strings.Contains(got.err, test.want) || strings.Count(got.err, "optimemctl: ") != 1 {
				t.Errorf("%+v, want %q", got, test.want)
			}
		})
	}
}

func TestAPlanIsDrawn(t *testing.T) {
	got := planned(t, layers, "--vram", "60%", "--json")
	var out, problem screen
	code := execute(t.Context(), []string{"report", "-", "-o", "-"}, stdio{in: bytes.NewBufferString(got.out), out: &out, err: &problem})
	if code != 0 || !strings.Contains(out.text.String(), "five layers") {
		t.Errorf("exit code %d: %s", code, problem.text.String())
	}
}

// pipe is a pipe that nobody writes to: whoever opens it waits.
func pipe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe.json")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatIsNoRegularFileIsNotOpened(t *testing.T) {
	folder := t.TempDir()
	good := put(t, folder, "good.json", layers)
	for _, path := range []string{pipe(t), "/dev/zero"} {
		for _, args := range [][]string{
			{"plan", path, "--vram", "50%"}, {"plan", good, "--vram", "50%", "--machine", path}, {"report", path, "-o", "-"},
		} {
			if got := call(t, args...); got.code != 2 || got.out != "" || !strings.Contains(got.err, path+" is no regular file") {
				t.Errorf("%v: %+v", args, got)
			}
		}
	}
	if got := call(t, "plan", folder+"/.", "--vram", "50%", "--machine", folder); got.code != 2 || !strings.Contains(got.err, "is a folder") {
		t.Errorf("%+v", got)
	}
}

// An endless reader never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestADocumentIsReadUpToALimit(t *testing.T) {
	if _, err := readUpTo(1000, endless{}, "stdin"); err == nil || !strings.Contains(err.Error(), "stdin has more than 1000 B") {
		t.Error(err)
	}
	if text, err := readUpTo(3, strings.NewReader("abc"), "stdin"); err != nil || string(text) != "abc" {
		t.Errorf("%s, %v", text, err)
	}
}

func TestAFaultOfThePlannerIsNoBadInput(t *testing.T) {
	q := question{input: input{name: "m.json"}}
	broken := q.refusal(fmt.Errorf("plan m: %w: copies[3]: no", search.ErrBroken))
	if broken.code != codeFault || !strings.Contains(broken.Error(), "report it with the request") {
		t.Errorf("%d, %v", broken.code, broken)
	}
	bad := q.refusal(fmt.Errorf("%w: units: none", planner.ErrInvalid))
	if bad.code != codeBadInput || bad.Error() != "m.json: units: none" {
		t.Errorf("%d, %v", bad.code, bad)
	}
}

func TestNamesMoveNoTerminal(t *testing.T) {
	got := planned(t, `{"model": "a\u001b[31m\nperiod  1 ns\u202eb\u2066", "notes": ["x\u001b]0;y\u0007\rz"], "units": [{"bytes": 9}]}`, "--vram", "100%")
	if got.code != 0 || strings.ContainsAny(got.out, "\x1b\x07\r\u202e\u2066") || !strings.Contains(got.out, "model          a[31m period  1 nsb\n") {
		t.Errorf("%+v", got)
	}
	if got := call(t, "plan", "we\x1b[31m\u202eird.json", "--vram", "5%"); got.code != 2 || strings.ContainsAny(got.err, "\x1b\u202e") {
		t.Errorf("%+v", got)
	}
}

func TestAFileWithAnyNameIsAnswered(t *testing.T) {
	path := put(t, t.TempDir(), "a\xff.json", layers)
	if got := call(t, "plan", path, "--vram", "60%", "--json"); got.code != 0 || !strings.Contains(got.out, `"five layers"`) {
		t.Errorf("%+v", got)
	}
	if got := call(t, "plan", put(t, t.TempDir(), "a\xff.json", `{"units": [{"bytes": 9}]}`), "--vram", "100%", "--json"); got.code != 0 || !strings.Contains(got.out, `"model": "a?"`) {
		t.Errorf("%+v", got)
	}
}

func TestBothDoorsSayTheSame(t *testing.T) {
	for _, request := range []string{
		"", "[]", "{", "{\"a\x1b[31m", "\uFEFF{}", `{"manifest": {"units": [{"bytes": -1}]}}`, `{"manifest": {"units": [{"bytes": 1, "a\u0000\u001b": "b"}]}}`,
		`{"manifest": {"units": [{"bytes": 9, "path": "a\u001b[31m\n\u202e\u00a0b"}]}, "machine": {"budget_bytes": 1}}`,
		`{"manifest": {"units": [{"bytes": 9, "path": "` + strings.Repeat("é", 2000) + `"}]}, "machine": {"budget_bytes": 1}}`,
		`{"manifest": {"units": [{"bytes": 9e14, "uses": []}]}, "machine": {"budget_bytes": 1e15, "link": {"bytes_per_second": 1}}}`,
		`{"manifest": {"units": [{"bytes": 4096}, {"bytes": 8192, "path": "a\u001b"}]}, "options": {"vram": "70%"}}`,
	} {
		answer, err := bindings.Plan(request)
		said := asked(t, request, "--json")
		if err == nil && said.out != answer || err != nil && said.err != "optimemctl: stdin: "+err.Error()+"\n" {
			t.Errorf("%.100q: %+v beside %q, %v", request, said, answer, err)
		}
	}
}
