package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/pflag"

	"github.com/optimem/optimem/internal/checkpoint"
	"github.com/optimem/optimem/internal/safetensors"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/contract"
	"github.com/optimem/optimem/simgpu"
)

// An inputKind is what plan is given.
type inputKind string

const (
	aDocument   inputKind = "a manifest"
	aCheckpoint inputKind = "a checkpoint"
	aModel      inputKind = "a model"
)

// An input is where a manifest comes from.
type input struct {
	kind inputKind
	path string
	name string // for people
}

// silentFlags are the flags that say nothing to a kind of input, and why.
var silentFlags = map[inputKind]struct {
	flags []string
	why   string
}{
	aDocument:   {[]string{"reuse", "device", "input", "size", "import", "nvml-library", "python", "seed"}, "its times and its machine stand in it"},
	aCheckpoint: {[]string{"input", "size", "import", "nvml-library", "python", "seed"}, "nothing is run for it"},
	aModel:      {[]string{"reuse"}, "its times are recorded"},
}

// checkFlags refuses what would not be heard.
func (in input) checkFlags(set *pflag.FlagSet) error {
	silent := silentFlags[in.kind]
	for _, name := range silent.flags {
		if set.Changed(name) {
			return fmt.Errorf("--%s says nothing to %s: %s; leave it out", name, in.kind, silent.why)
		}
	}
	return nil
}

// parseInput finds out what kind of INPUT a text names.
func parseInput(text string) (input, error) {
	in := input{kind: aDocument, path: text, name: text}
	switch {
	case text == "-":
		in.name = "stdin"
		return in, nil
	case strings.HasPrefix(text, "torchvision:"), strings.Contains(text, ".py:"):
		in.kind = aModel
		_, err := parseTarget(text)
		return in, asInput(err)
	case strings.HasSuffix(text, ".py"):
		return in, fmt.Errorf("INPUT %s is a script, which calls its model itself: "+
			"give the function that makes the model as %s:NAME, or the manifest that `run %s --json` prints", text, text, text)
	}
	info, err := os.Stat(text)
	if err != nil {
		return in, fmt.Errorf("INPUT: %w; %s", err, inputForms)
	}
	if info.IsDir() || strings.HasSuffix(text, safetensors.Suffix) || strings.HasSuffix(text, safetensors.IndexSuffix) {
		in.kind = aCheckpoint
	}
	return in, nil
}

// asInput says INPUT where run says TARGET.
func asInput(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(err.Error(), "TARGET", "INPUT"))
}

// read makes a request of the input.
func (q *question) read(ctx context.Context, std stdio) (contract.Request, error) {
	switch q.input.kind {
	case aCheckpoint:
		return q.readCheckpoint()
	case aModel:
		return q.record(ctx, std)
	}
	text, err := readText(q.input.path, std.in)
	if err != nil {
		return contract.Request{}, &exit{codeBadInput, err}
	}
	r, err := readQuestion(text)
	if err != nil {
		return r, refused(q.input.name, err)
	}
	if r.Manifest.Model == "" && q.input.path != "-" {
		r.Manifest.Model = strings.ToValidUTF8(strings.TrimSuffix(filepath.Base(q.input.path), ".json"), "?")
	}
	return r, nil
}

// readQuestion reads a request, or a manifest, which has units but no manifest inside.
func readQuestion(text []byte) (contract.Request, error) {
	var holds struct {
		Manifest jsontext.Value `json:"manifest"`
		Units    jsontext.Value `json:"units"`
	}
	if json.Unmarshal(text, &holds) != nil || holds.Manifest != nil || holds.Units == nil {
		return contract.ReadRequest(text)
	}
	manifest, err := contract.ReadManifest(text)
	return contract.Request{Manifest: manifest}, err
}

// longestDocument is the longest document that is read, in bytes.
const longestDocument = 256 << 20

// readText reads a document from a file or from stdin.
func readText(path string, stdin io.Reader) ([]byte, error) {
	from, name := stdin, "stdin"
	if path != "-" {
		file, err := openFile(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		from, name = file, path
	}
	return readUpTo(longestDocument, from, name)
}

// readUpTo reads a document of at most so many bytes.
func readUpTo(most int64, from io.Reader, name string) ([]byte, error) {
	var text bytes.Buffer
	n, err := io.CopyN(&text, from, most+1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if n > most {
		return nil, fmt.Errorf("%s has more than %v: is it a document in JSON? a checkpoint's name ends in %s", name, planner.Bytes(most), safetensors.Suffix)
	}
	return text.Bytes(), nil
}

// readMachine reads what --machine names.
func readMachine(path string) (*contract.Machine, error) {
	if path == "" {
		return nil, errors.New("--machine: it is empty: name a file")
	}
	if path == "-" {
		return nil, errors.New("--machine -: name a file; stdin is for INPUT, where a request can hold both")
	}
	text, err := readText(path, nil)
	if err != nil {
		return nil, fmt.Errorf("--machine: %w", err)
	}
	m, err := contract.ReadMachine(text)
	if err != nil {
		return nil, fmt.Errorf("--machine %s: %w", path, err)
	}
	return &m, nil
}

// readCheckpoint reads headers and supposes the rest.
func (q question) readCheckpoint() (r contract.Request, err error) {
	guess, err := q.guess()
	if err != nil {
		return r, badInput("--device: %w", err)
	}
	model, err := safetensors.Read(q.input.path)
	if err != nil {
		return r, &exit{codeBadInput, err}
	}
	r.Manifest = checkpoint.Manifest(q.input.base(), model.Tensors, guess)
	r.Machine = q.within(guess.Machine())
	return r, nil
}

// base is what a checkpoint is called: its file without the suffix, or its folder.
func (in input) base() string {
	path := strings.TrimSuffix(strings.TrimSuffix(in.path, safetensors.IndexSuffix), safetensors.Suffix)
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	return strings.ToValidUTF8(filepath.Base(path), "?")
}

// within is a machine on which --vram, where it is given, is not cut to what the device has.
func (q question) within(m contract.Machine) contract.Machine {
	if q.flags.vram != "" {
		m.Free = 0
	}
	return m
}

// guess is what times are estimated by.
func (q question) guess() (g checkpoint.Guess, err error) {
	kind, name, _ := strings.Cut(q.flags.device, ":")
	if kind != "auto" && kind != "sim" && kind != "simgpu" {
		return g, fmt.Errorf("a checkpoint tells no times, and %s cannot be asked before something runs: give sim:NAME, where NAME is one of %s",
			q.flags.device, strings.Join(simgpu.Cards(), ", "))
	}
	if g.Card, err = simgpu.LoadCard(cmp.Or(name, simgpu.DefaultCard)); err != nil {
		return g, err
	}
	g.Host, err = simgpu.LoadHost(simgpu.DefaultHost)
	g.Reuse = q.flags.reuse
	return g, err
}
