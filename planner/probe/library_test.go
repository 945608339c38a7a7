//go:build linux && cgo

package probe

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/optimem/optimem/planner"
)

const (
	gib = planner.Bytes(1 << 30)
	mib = planner.Bytes(1 << 20)

	fakeVariable = "PROBE_TEST_FAKE_NVML" // the stand-in's file, for children of the test
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

// testMain compiles the stand-in once for all tests and their children: a process can use one NVML library.
func testMain(m *testing.M) int {
	if fakeNVML = os.Getenv(fakeVariable); fakeNVML != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fakeNVML = filepath.Join(dir, "libfakenvml.so")
	fakeFault = compile(fakeNVML, "testdata/fakenvml.c")
	return m.Run()
}

var (
	fakeNVML  string
	fakeFault error
)

// fake is the file of the stand-in library.
func fake(t *testing.T) string {
	t.Helper()
	if fakeFault != nil {
		t.Fatal(fakeFault)
	}
	return fakeNVML
}

func compile(to, from string) error {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return errors.New("this test compiles a stand-in for NVML and found no C compiler; install one as cc")
	}
	out, err := exec.CommandContext(context.Background(), cc, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", to, from).CombinedOutput()
	if err != nil {
		return errors.New("compile " + from + ": " + err.Error() + "\n" + string(out))
	}
	return nil
}

func TestACardThatTellsEverythingIsReadThroughTheRealLibraryPath(t *testing.T) {
	t.Setenv(LibraryVariable, fake(t))
	r, err := Default("").Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Card{
		Index: 0, UUID: "GPU-00000000-0000-0000-0000-00000000000a", Name: "Fake Talkative", DriverVersion: "999.1.1",
		TotalBytes: 24 * gib, FreeBytes: 18*gib + 512*mib, UsedBytes: 5 * gib, ReservedBytes: 512 * mib,
		Link: Link{Generation: 1, Width: 8, MaxGeneration: 4, MaxWidth: 16, BytesPerSecond: 2_000_000_000, MaxBytesPerSecond: 31_507_692_304},
		Processes: []Process{
			{PID: 1, Bytes: gib, Name: "/sbin/init", Type: ComputeAndGraphics},
			{PID: 2, Bytes: 0, Name: "python", Type: Compute},
			{PID: 3, Bytes: 256 * mib, Name: "[2Jhostile", Type: Graphics},
			{PID: os.Getpid(), Bytes: 3 * gib, Name: "python", Type: Compute},
		},
	}
	if diff := cmp.Diff(want, r.Cards[0]); diff != "" {
		t.Errorf("card 0 (-want +got):\n%s", diff)
	}
	if held := r.Cards[0].HeldBy(os.Getpid()); held != 3*gib {
		t.Errorf("this process holds %v, want 3 GiB", held)
	}
}

func TestACardThatTellsLittleIsReadWithNotes(t *testing.T) {
	cards, notes, err := NVML(fake(t)).ReadCards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(cards) != 2 {
		t.Fatalf("%d cards, want 2: the third may not be used", len(cards))
	}
	want := Card{
		Index: 1, UUID: "GPU-00000000-0000-0000-0000-000000000001", Name: "Fake Silent", DriverVersion: "999.1.1",
		TotalBytes: 8 * gib, FreeBytes: 7 * gib, UsedBytes: gib,
	}
	if diff := cmp.Diff(want, cards[1]); diff != "" {
		t.Errorf("card 1 (-want +got):\n%s", diff)
	}
	wantNotes := Notes{
		"Not known in full: the PCIe link of card 1 (nvmlDeviceGetCurrPcieLinkGeneration: fake words for 3 (NVML code 3)).",
		"Not known in full: the processes of card 1 (nvmlDeviceGetComputeRunningProcesses: fake words for 3 (NVML code 3)).",
		"Card 2 is left out: this user or container may not use it.",
	}
	if diff := cmp.Diff(wantNotes, notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

func TestEveryInitHasItsShutdown(t *testing.T) {
	inits := func() string {
		t.Helper()
		cards, _, err := NVML(fake(t)).ReadCards(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(cards[0].DriverVersion, "999.1.")
	}
	if n := inits(); n != "1" {
		t.Errorf("%s inits during a reading, want 1", n)
	}
	t.Setenv("FAKENVML_COUNT", "15")
	if _, _, err := NVML(fake(t)).ReadCards(t.Context()); err == nil {
		t.Error("a reading with a lost card gave no error")
	}
	t.Setenv("FAKENVML_COUNT", "0")
	if n := inits(); n != "1" {
		t.Errorf("%s inits during a reading after one that stopped halfway, want 1", n)
	}
	release, err := Hold(t.Context(), Options{Library: fake(t)})
	if err != nil {
		t.Fatal(err)
	}
	if n := inits(); n != "2" {
		t.Errorf("%s inits during a reading while NVML is held, want 2", n)
	}
	if err := errors.Join(release(), release()); err != nil {
		t.Errorf("release: %v", err)
	}
	if n := inits(); n != "1" {
		t.Errorf("%s inits during a reading after NVML was released twice, want 1", n)
	}
}

func TestAFaultNamesTheCallAndTheNextStep(t *testing.T) {
	for _, c := range []struct {
		name, variable, code string
		want                 Fault
	}{
		{"init finds another driver than its own", "FAKENVML_INIT", "18",
			Fault{"nvmlInit", 18, "fake words for 18", "the driver was updated while in use: restart the machine"}},
		{"init of a named library finds no driver", "FAKENVML_INIT", "9",
			Fault{"nvmlInit", 9, "fake words for 9", "load the NVIDIA driver, then run nvidia-smi to see that it answers"}},
		{"a card fell off the bus", "FAKENVML_COUNT", "15",
			Fault{"nvmlDeviceGetCount", 15, "fake words for 15", "reset the card (nvidia-smi --gpu-reset) or restart the machine"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(c.variable, c.code)
			_, err := Default(fake(t)).Probe(t.Context())
			var got *Fault
			if !errors.As(err, &got) {
				t.Fatalf("got %v, want a Fault", err)
			}
			if diff := cmp.Diff(c.want, *got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestALibraryThatCannotBeUsedIsNamed(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	source, other := filepath.Join(dir, "other.c"), filepath.Join(dir, "other.so")
	if err := os.WriteFile(source, []byte("int nvmlInit_v2(void) { return 0; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := compile(other, source); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, library, says string }{
		{"a path where nothing is", filepath.Join(dir, "nothing.so"), "nothing.so"},
		{"a relative path where nothing is", "./nothing.so", `"./nothing.so"`},
		{"a file that is no library", text, "text.so"},
		{"a library that is not NVML", other, "no function nvmlShutdown"},
		{"a name that C would cut short", fakeNVML + "\x00.so", "zero byte"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := door{turn: newTurn()}
			_, _, err := nvmlReader{&d, c.library}.ReadCards(t.Context())
			if !errors.Is(err, ErrLibrary) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want ErrLibrary that says %s", err, c.says)
			}
			if d.lib != nil {
				t.Error("the library was kept")
			}
		})
	}
}

func TestARelativePathIsTakenFromTheWorkingDirectory(t *testing.T) {
	if inParent(t) {
		return
	}
	file := os.Getenv(fakeVariable)
	t.Chdir(filepath.Dir(file))
	cards, _, err := NVML("./" + filepath.Base(file)).ReadCards(t.Context())
	if err != nil || len(cards) != 2 {
		t.Errorf("%d cards and error %v, want 2 and none", len(cards), err)
	}
}

func TestASecondLibraryInOneProcessIsRefused(t *testing.T) {
	if _, _, err := NVML(fake(t)).ReadCards(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err := NVML("").ReadCards(t.Context())
	if !errors.Is(err, ErrLibrary) || !strings.Contains(err.Error(), fakeNVML) {
		t.Errorf("got %v, want ErrLibrary that names %s", err, fakeNVML)
	}
}

func TestTheDriversOwnLibraryMayBeMissing(t *testing.T) {
	if inParent(t) {
		return
	}
	r, err := Default("").Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cards) > 0 {
		return // a machine with a driver: it has said more than this test asks
	}
	if !said(r.Notes, "no NVIDIA card") {
		t.Errorf("notes %q, want one that says that there is no card", r.Notes)
	}
	release, err := Hold(t.Context(), Options{})
	if err != nil || release() != nil {
		t.Errorf("Hold without a driver: %v", err)
	}
	if nvmlDoor.lib != nil {
		return // the library is here without its driver, and this process is tied to it
	}
	if _, _, err := NVML(os.Getenv(fakeVariable)).ReadCards(t.Context()); err != nil {
		t.Errorf("a named library after a missing one: %v", err)
	}
}

// inParent runs the same test again in a process of its own, which is not yet tied to a library, and is false there.
func inParent(t *testing.T) bool {
	t.Helper()
	if os.Getenv(fakeVariable) != "" {
		return false
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	child.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, LibraryVariable+"=") }),
		fakeVariable+"="+fake(t))
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("child: %v\n%s", err, out)
	}
	return true
}

func TestAnEndedContextStopsAReading(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := NVML(fake(t)).ReadCards(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
