package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// withinBudget checks what every run under a budget must hold.
func withinBudget(t *testing.T, got result) {
	t.Helper()
	if got.Equal == nil || !*got.Equal {
		t.Errorf("the result differs from the plain model's: %v", got.Notes)
	}
	if got.DevicePeakBytes <= 0 || got.DevicePeakBytes > got.BudgetBytes+got.ReserveBytes {
		t.Errorf("device peak %d is above budget %d plus reserve %d", got.DevicePeakBytes, got.BudgetBytes, got.ReserveBytes)
	}
	if got.ResidentBytes+got.ArenaBytes > got.BudgetBytes {
		t.Errorf("residents %d and arena %d exceed the budget %d", got.ResidentBytes, got.ArenaBytes, got.BudgetBytes)
	}
	if got.PeriodNS == nil || got.PlainPeriodNS == nil {
		t.Error("times are missing")
	}
	if got.Misses != 0 {
		t.Errorf("%d pages were fetched outside the plan", got.Misses)
	}
}

func TestResNetIsPagedWithinAQuarterOfItsWeights(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	got := p.json("run", "torchvision:resnet101", "--input", photo(t), "--size", "512x512", "--mode", "page", "--vram", "25%")
	withinBudget(t, got)
	if got.StreamedPages == 0 || got.ResidentPages == 0 || got.ArenaBytes == 0 || got.BoundNS == nil {
		t.Errorf("this is no paging: %+v", got)
	}
	if got.H2DBytes < int64(got.Forwards-1)*got.WeightsBytes/2 {
		t.Errorf("%d bytes over the link are too few for %d forwards", got.H2DBytes, got.Forwards)
	}
	p.clean()
}

func TestResNetIsChunkedWithinAQuarterOfItsWeights(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	got := p.json("run", "torchvision:resnet101", "--input", photo(t), "--size", "512x512", "--mode", "chunk", "--vram", "25%")
	withinBudget(t, got)
	if got.ResidentBytes == 0 || got.StreamedPages != 0 || got.ArenaBytes != 0 {
		t.Errorf("this is no chunk: %+v", got)
	}
	p.clean()
}

func TestResNetIsPagedAndLeftToTheCPUInPart(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	args := []string{"run", net, "--device", "sim:rtx3060", "--vram", "25%", "--forwards", "32", "--mode"}
	paged, mixed := p.json(append(args, "page")...), p.json(append(args, "auto")...)
	withinBudget(t, mixed)
	if mixed.CPUPages == 0 || mixed.StreamedPages == 0 || mixed.ResidentPages == 0 {
		t.Errorf("this is no mix: %+v", mixed)
	}
	if *mixed.PeriodNS > *paged.PeriodNS+*paged.PeriodNS/50 {
		t.Errorf("a forward takes %d ns, and %d without the CPU", *mixed.PeriodNS, *paged.PeriodNS)
	}
	p.clean()
}

func TestSentencesAreComparedWithRealWeights(t *testing.T) {
	t.Parallel()
	// More than half of this model is one table of words, so a page may not be smaller.
	for mode, share := range map[string]string{"page": "60%", "chunk": "25%"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			got := p.json("run", "examples/sentences.py:embedder", "--mode", mode, "--vram", share)
			withinBudget(t, got)
			if notes := strings.Join(got.Notes, "\n"); !strings.Contains(notes, "as it should be") {
				t.Errorf("sentences alike should be closer than unlike ones: %s", notes)
			}
			p.clean()
		})
	}
}

func TestSimulatedTimesAreTheSameInEveryRun(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"page", "chunk"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			var first run
			for i := range 2 {
				out := p.run("run", net, "--device", "sim:rtx4090", "--mode", mode, "--vram", "30%",
					"--forwards", "8", "--json")
				if out.code != 0 {
					t.Fatalf("exit code %d: %s", out.code, out.stderr)
				}
				if i == 0 {
					first = out
				} else if diff := cmp.Diff(first.stdout, out.stdout); diff != "" {
					t.Errorf("run %d differs from run 1: %s", i+1, diff)
				}
			}
			if !strings.Contains(first.stdout, "Simulated NVIDIA GeForce RTX 4090") {
				t.Errorf("this is another card: %s", first.stdout)
			}
		})
	}
}

func TestBytesOnTheCardHoldActivationsToo(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	got := p.json("run", net, "--vram", "24MiB", "--device", "sim")
	withinBudget(t, got)
	if got.DevicePeakBytes > 24<<20 {
		t.Errorf("device peak %d is above the 24 MiB that were given", got.DevicePeakBytes)
	}
}

func TestMaxLayerSizeCountsParameters(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	fine := p.json("run", net, "--vram", "70%", "--max-layer-size", "1")
	coarse := p.json("run", net, "--vram", "70%", "--max-layer-size", "3000000")
	withinBudget(t, fine)
	withinBudget(t, coarse)
	if fine.Pages <= coarse.Pages {
		t.Errorf("%d pages of single layers should be more than %d of whole blocks", fine.Pages, coarse.Pages)
	}
}

func TestOnTheCPUTheModelRunsAsItIs(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	got := p.json("run", net, "--device", "cpu")
	if got.Equal == nil || !*got.Equal || got.Device != "cpu" || got.Simulated {
		t.Errorf("got %+v", got)
	}
	p.clean()
}

func TestAPersonIsToldWhatHappened(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	out := p.run("run", "torchvision:resnet18", "--vram", "50%", "--size", "64x64")
	if out.code != 0 {
		t.Fatalf("exit code %d: %s", out.code, out.stderr)
	}
	for _, word := range []string{"simulated", "weights", "budget", "resident", "streamed", "forwards", "peak", "bit for bit"} {
		if !strings.Contains(out.stdout+out.stderr, word) {
			t.Errorf("nothing is said of %q:\n%s%s", word, out.stdout, out.stderr)
		}
	}
}

// write puts a Python file into a directory of the test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// read returns what is in a file.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const script = `
import sys, torch, optimem
torch.manual_seed(0)
model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(8)]).eval()
x = torch.ones(1, 256)
with torch.no_grad():
    plain = model(x)
    optimem.page(model)
    same = all(torch.equal(model(x).cpu(), plain) for _ in range(5))
print("arguments", sys.argv[1:], "same", same, "streamed", optimem.status(model).streamed_pages)
`

func TestAScriptThatPagesItsOwnModelGetsTheBudgetOfTheCommandLine(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	path := write(t, "script.py", script)
	out := p.run("run", path, "--vram", "50%", "--", "--steps", "7")
	if out.code != 0 || !strings.Contains(out.stdout, "arguments ['--steps', '7'] same True") {
		t.Errorf("exit code %d\n%s%s", out.code, out.stdout, out.stderr)
	}
	if strings.Contains(out.stdout, "streamed 0") {
		t.Errorf("the budget did not reach the script: %s", out.stdout)
	}
	got := p.json("run", path, "--vram", "50%")
	if got.Mode != "page" || got.Forwards != 5 || got.Equal != nil || got.PlainPeriodNS != nil {
		t.Errorf("got %+v", got)
	}
	p.clean()
}

func TestABareScriptStartsAControllerOfItsOwn(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	path := write(t, "bare.py", script)
	cmd := p.command(t.Context())
	cmd.Path, cmd.Args = python(t), []string{python(t), path}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "same True") {
		t.Errorf("%v\n%s", err, out)
	}
	p.clean()
}

func TestADeviceInAPackageOfItsOwnIsImportedFirst(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	got := p.json("run", net, "--import", "simgpu", "--device", "simgpu", "--vram", "50%")
	withinBudget(t, got)
}
