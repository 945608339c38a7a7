package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/optimem/optimem/internal/report"
	"github.com/optimem/optimem/planner/contract"
)

// printed is what a run prints, in a file.
func printed(t *testing.T, role string) (folder, file string) {
	t.Helper()
	p := newPlace(t)
	t.Setenv(roleVariable, role)
	target := "torchvision:resnet101"
	if strings.HasPrefix(role, "script") {
		target = p.script
	}
	got := call(t, "run", target, "--python", program(t), "--json")
	if got.code != 0 {
		t.Fatalf("%+v", got)
	}
	folder = t.TempDir()
	return folder, put(t, folder, "run.json", got.out)
}

func put(t *testing.T, folder, name, text string) string {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func get(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAReportOfARun(t *testing.T) {
	folder, file := printed(t, "success")
	got := call(t, "report", file, "--trace", filepath.Join(folder, "trace.json"))
	page := filepath.Join(folder, "run.html")
	if got.code != 0 || got.out != "wrote "+page+"\n" || got.err != "" {
		t.Errorf("%+v", got)
	}
	text := get(t, page)
	for _, want := range []string{"<!DOCTYPE html>", "torchvision:resnet101", "12.0 ms per forward (simulated), ", "8.00 ms", "bit for bit", "</html>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	var trace struct{ TraceEvents []any }
	if err := json.Unmarshal([]byte(get(t, filepath.Join(folder, "trace.json"))), &trace); err != nil || len(trace.TraceEvents) < 10 {
		t.Errorf("%v: %d events", err, len(trace.TraceEvents))
	}
	if info, err := os.Stat(page); err != nil || info.Mode().Perm()&0o600 != 0o600 || info.Mode().Perm()&0o133 != 0 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(folder, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAReportOfAnAnswer(t *testing.T) {
	folder, file := printed(t, "success")
	var run struct{ Plan, Manifest, Machine json.RawMessage }
	if err := json.Unmarshal([]byte(get(t, file)), &run); err != nil {
		t.Fatal(err)
	}
	got := call(t, "report", put(t, folder, "plan.json", string(run.Plan)), "-o", "-")
	if got.code != 0 || !strings.Contains(got.out, "Nothing was run: all times are predicted.") {
		t.Errorf("code %d, %s, %.300s", got.code, got.err, got.out)
	}
	for name, document := range map[string]json.RawMessage{"manifest": run.Manifest, "machine": run.Machine} {
		if len(document) < 3 || !bytes.Contains(run.Plan, []byte("\""+name+"\"")) {
			t.Errorf("%s is %s", name, document)
		}
	}
}

func TestAReportOfWhatStdinSays(t *testing.T) {
	_, file := printed(t, "success")
	var out, err screen
	in := strings.NewReader(get(t, file))
	if code := execute(t.Context(), []string{"report", "-", "-o", "-"}, stdio{in: in, out: &out, err: &err}); code != 0 || !strings.HasSuffix(out.text.String(), "</html>\n") {
		t.Errorf("code %d, %s", code, err.text.String())
	}
}

func TestAReportOfAScript(t *testing.T) {
	folder, file := printed(t, "script with two models")
	got := call(t, "report", file)
	if got.code != 0 || !strings.Contains(got.err, "has 2 sessions: this is the first, --session N picks another") {
		t.Errorf("%+v", got)
	}
	if got := call(t, "report", file, "--session", "2", "-o", filepath.Join(folder, "second.html")); got.code != 0 || got.err != "" {
		t.Errorf("%+v", got)
	}
	if got := call(t, "report", file, "--session", "3"); got.code != 2 || !strings.Contains(got.err, "it has 2 sessions") {
		t.Errorf("%+v", got)
	}
}

func TestFilesThatAreNoRun(t *testing.T) {
	folder, file := printed(t, "success")
	whole := get(t, file)
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(whole), &fields); err != nil {
		t.Fatal(err)
	}
	with := func(key, value string) string {
		changed := map[string]json.RawMessage{}
		for k, v := range fields {
			changed[k] = v
		}
		changed[key] = json.RawMessage(value)
		text, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for want, text := range map[string]string{
		"ends too early":            whole[:len(whole)/2],
		"the JSON ends too":         "",
		"byte order mark":           "\uFEFF" + whole,
		"this is no JSON":           "model        torchvision:resnet101\n",
		"it holds array":            "[1, 2]",
		"neither what `run --json`": `{"hello": 1}`,
		"it has no plan to draw":    with("plan", "null"),
		"no session":                `{"sessions": []}`,
		"plan: version":             with("plan", strings.Replace(string(fields["plan"]), `"version": 1`, `"version": 9`, 1)),
		"plan: ":                    with("plan", strings.Replace(string(fields["plan"]), `"resident_bytes": `, `"resident_bytes": 1`, 1)),
		"period_ns: ":               with("period_ns", "18446744073709551615"),
		"is the wrong kind":         with("period_ns", `"soon"`),
	} {
		t.Run(want, func(t *testing.T) {
			bad := put(t, folder, "bad.json", text)
			got := call(t, "report", bad)
			if got.code != 2 || got.out != "" || !strings.Contains(got.err, want) || !strings.Contains(got.err, bad) {
				t.Errorf("%+v, want %q", got, want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(folder, "bad.html")); err == nil {
		t.Error("a page was written")
	}
}

func TestReportsThatAreRefused(t *testing.T) {
	folder, file := printed(t, "success")
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "no RUN.json"},
		{[]string{file, "more"}, "follows it"},
		{[]string{"missing.json"}, "missing.json"},
		{[]string{folder}, "is a folder"},
		{[]string{"-"}, "-o"},
		{[]string{file, "--session", "-1"}, "--session -1"},
		{[]string{file, "--session", "2"}, "one session only"},
		{[]string{file, "-o", filepath.Join(folder, "no", "page.html")}, "make it first"},
		{[]string{file, "-o", folder}, "is a folder"},
		{[]string{file, "-o", file}, "would overwrite"},
		{[]string{file, "--trace", file}, "would overwrite"},
		{[]string{file, "--trace", "-"}, "name a file"},
		{[]string{file, "--trace", ""}, "--trace: it is empty"},
		{[]string{file, "-o", ""}, "-o: it is empty"},
		{[]string{file, "-o", filepath.Join(folder, "a"), "--trace", filepath.Join(folder, ".", "a")}, "name two files"},
	} {
		if got := call(t, append([]string{"report"}, test.args...)...); got.code != 2 || got.out != "" || !strings.Contains(got.err, test.want) {
			t.Errorf("%v: %+v, want %q", test.args, got, test.want)
		}
	}
}

func TestAFileIsReplacedWhole(t *testing.T) {
	folder := t.TempDir()
	page := put(t, folder, "page.html", "old")
	link := filepath.Join(folder, "link.html")
	if err := os.Symlink(page, link); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(link, []byte("new")); err != nil || get(t, page) != "new" {
		t.Errorf("%v: %s", err, get(t, page))
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	if err := replaceFile(os.DevNull, []byte("new")); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Errorf("%s was replaced: %v", os.DevNull, err)
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestARunWritesATrace(t *testing.T) {
	p := newPlace(t)
	path := filepath.Join(t.TempDir(), "trace.json")
	t.Setenv(roleVariable, "script with two models")
	if got := call(t, "run", p.script, "--python", program(t), "--trace", path); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	var trace struct {
		OtherData struct {
			Processes []struct {
				Measured float64 `json:"measured_period_ns"`
			}
		}
	}
	if err := json.Unmarshal([]byte(get(t, path)), &trace); err != nil || len(trace.OtherData.Processes) != 2 || trace.OtherData.Processes[1].Measured != 12e6 {
		t.Errorf("%v: %+v", err, trace)
	}
	t.Setenv(roleVariable, "script without a model")
	none := filepath.Join(filepath.Dir(path), "none.json")
	if got := call(t, "run", p.script, "--python", program(t), "--trace", none); got.code != 0 || !strings.Contains(got.err, "no trace: nothing was paged") {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"-", "/no/such/folder/trace.json", t.TempDir(), ""} {
		if got := call(t, "run", p.script, "--python", program(t), "--trace", bad); got.code != 2 || !strings.Contains(got.err, strings.TrimSpace("--trace "+bad)) {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

func TestACertificateBelowTheBoundIsSaidPlainly(t *testing.T) {
	told := sample()
	told.report.PeriodNS = 15_000_000
	var out bytes.Buffer
	if err := printText(&out, model().target, ending{records: []record{told}}.results(model())); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%.1f %% below", 100*(15.3-15)/15.3); !strings.Contains(out.String(), want) {
		t.Errorf("%s lacks %q", out.String(), want)
	}
}

// FuzzReport looks for a file that ends the program.
func FuzzReport(f *testing.F) {
	plan := `{"version": 1, "model": "m", "mode": "page", "estimated": true, "period_ns": 30, "bound_ns": 0, "gap": 0, "first_forward_ns": 0, "bottleneck": "link",
		"weights_bytes": 20, "budget_bytes": 10, "reserve_bytes": 0, "arena_bytes": 10, "resident_bytes": 0,
		"pages": [{"units": ["a"], "bytes": 10, "placement": "streamed"}, {"units": ["b"], "bytes": 10, "placement": "streamed"}],
		"copies": [{"page": 0, "offset": 0, "first": 0, "last": 0, "after": 1}, {"page": 1, "offset": 0, "first": 1, "last": 1, "after": 1}],
		"eviction": [], "curve": [{"budget_bytes": 10, "period_ns": 30, "bound_ns": 1, "missing_bytes": 0}, {"budget_bytes": 20, "period_ns": 9, "bound_ns": 1, "missing_bytes": 0}],
		"notes": ["n"], "manifest": {"model": "m", "units": [{"id": "a", "bytes": 10, "compute_ns": 5}, {"id": "b", "bytes": 10, "compute_ns": 4}]},
		"machine": {"link": {"latency_ns": 1, "bytes_per_second": 1000000000}}}`
	f.Add(plan)
	f.Add(`{"device": "sim", "model": "x", "period_ns": 40, "stall_ns": [1, 2], "plan": ` + plan + `}`)
	f.Add(strings.Replace(plan, `"bound_ns": 1,`, `"bound_ns": 1000000000000000,`, 1)) // far above the period
	f.Add(`{"sessions": [{"device": "sim", "plan": ` + plan + `}, {}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		subject, _, err := readSubject([]byte(text), 0)
		if err != nil {
			return
		}
		var page bytes.Buffer
		if err := report.Write(&page, subject); err == nil && page.Len() > 4<<20 {
			t.Errorf("%d bytes of JSON are a page of %d", len(text), page.Len())
		}
	})
}

// drawnFrom calls report with stdin, for the page on stdout.
func drawnFrom(t *testing.T, stdin string, args ...string) said {
	t.Helper()
	var out, err screen
	code := execute(t.Context(), append([]string{"report", "-", "-o", "-"}, args...), stdio{in: strings.NewReader(stdin), out: &out, err: &err})
	return said{code, out.text.String(), err.text.String()}
}

func TestAnAbsurdAnswerIsNotDrawn(t *testing.T) {
	for _, curve := range []string{`[]`, `["50%"]`} {
		answer := asked(t, `{"manifest": `+layers+`, "options": {"vram": "60%", "curve": `+curve+`}}`, "--json")
		for text, want := range map[string]string{
			strings.Replace(answer.out, `"bytes_per_second": 25000000000`, `"bytes_per_second": 1`, 1): "optimemctl: stdin: units[0] (a): ",
			strings.Replace(answer.out, `"resident_bytes": `, `"resident_bytes": 1`, 1):                "optimemctl: stdin: plan: it says ",
		} {
			trace := filepath.Join(t.TempDir(), "trace.json")
			got := drawnFrom(t, text, "--trace", trace)
			if _, err := os.Stat(trace); got.code != 2 || got.out != "" || !strings.HasPrefix(got.err, want) || err == nil {
				t.Errorf("curve %s: code %d, %s, %v", curve, got.code, got.err, err)
			}
		}
	}
}

func TestAMissingCurveIsThatOfTheWishes(t *testing.T) {
	for _, wish := range []string{`"pages_as_given": true`, `"mode": "chunk", "max_capacity": "20MiB"`} {
		answer := asked(t, `{"manifest": `+layers+`, "options": {"vram": "60%", "curve": [], `+wish+`}}`, "--json")
		s, _, err := readSubject([]byte(answer.out), 0)
		if err != nil || len(s.Curve) == 0 {
			t.Fatalf("%v: %+v", err, answer)
		}
		var budgets []string
		for _, p := range s.Curve {
			budgets = append(budgets, fmt.Sprint(int64(p.Budget)))
		}
		want, err := contract.ReadAnswer([]byte(asked(t, `{"manifest": `+layers+`, "options": {"vram": "60%", "curve": [`+strings.Join(budgets, ", ")+`], `+wish+`}}`, "--json").out))
		if diff := cmp.Diff(want.Curve, s.Curve); err != nil || diff != "" {
			t.Errorf("%s: %v, %s", wish, err, diff)
		}
	}
}

func TestWhatCannotBeWrittenIsAFault(t *testing.T) {
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("there is no folder in which even root cannot make a file")
	}
	answer := asked(t, layers, "--vram", "60%", "--json")
	file := put(t, t.TempDir(), "answer.json", answer.out)
	for _, flag := range []string{"-o", "--trace"} {
		got := call(t, "report", file, flag, "/proc/self/page")
		if got.code != 1 || !strings.HasPrefix(got.err, "optimemctl: "+flag+": write /proc/self/page: ") || strings.Contains(got.err, ".page") {
			t.Errorf("%s: %+v", flag, got)
		}
	}
}
