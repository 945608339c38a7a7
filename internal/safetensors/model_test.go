package safetensors

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// put writes a file whose tensors are bytes.
func put(t *testing.T, path string, names ...string) {
	t.Helper()
	var entries []string
	for i, name := range names {
		entries = append(entries, fmt.Sprintf(`%q: {"dtype": "U8", "shape": [1], "data_offsets": [%d, %d]}`, name, i, i+1))
	}
	write(t, path, string(headed("{"+strings.Join(entries, ", ")+"}"))+strings.Repeat("x", len(names)))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// read returns the names of the tensors, or what went wrong.
func read(path string) string {
	model, err := Read(path)
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, tensor := range model.Tensors {
		names = append(names, filepath.Base(tensor.File)+":"+tensor.Name)
	}
	return strings.Join(names, " ")
}

func TestModelsOfSeveralFiles(t *testing.T) {
	const index = "model.safetensors.index.json"
	for name, test := range map[string]struct {
		index string
		want  string
	}{
		"without an index all files":      {"", "one.safetensors:a one.safetensors:b two.safetensors:c"},
		"an index names some":             {`{"metadata": {"total_size": 2}, "weight_map": {"a": "one.safetensors", "c": "two.safetensors"}}`, "one.safetensors:a two.safetensors:c"},
		"another one's nulls are nothing": {`{"metadata": null, "weight_map": {"c": "two.safetensors"}}`, "two.safetensors:c"},
		"a missing file":                  {`{"weight_map": {"a": "one.safetensors", "d": "three.safetensors"}}`, "three.safetensors: no such file or directory: is the download complete?"},
		"a tensor that is not there":      {`{"weight_map": {"z": "one.safetensors", "a": "one.safetensors"}}`, "weight_map.z: "},
		"a path out of the folder":        {`{"weight_map": {"a": "../one.safetensors"}}`, `weight_map.a: "../one.safetensors" is no .safetensors file beside the index`},
		"a path through a folder":         {`{"weight_map": {"a": "x/../../one.safetensors"}}`, "weight_map.a: "},
		"an absolute path":                {`{"weight_map": {"a": "/etc/one.safetensors"}}`, "weight_map.a: "},
		"another kind of file":            {`{"weight_map": {"a": "one.bin"}}`, "weight_map.a: "},
		"no file":                         {`{"weight_map": {}}`, "weight_map: it names no file"},
		"no map":                          {`{"weight_map": 3}`, "weight_map: a number is the wrong kind"},
		"no index at all":                 {`[]`, "the document is a list"},
		"a tensor twice":                  {`{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}`, "weight_map.a: it is there twice"},
	} {
		folder := t.TempDir()
		put(t, filepath.Join(folder, "one.safetensors"), "a", "b")
		put(t, filepath.Join(folder, "two.safetensors"), "c")
		if test.index != "" {
			write(t, filepath.Join(folder, index), test.index)
		}
		if got := read(folder); got != test.want && !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestFoldersThatSayTooMuchOrTooLittle(t *testing.T) {
	folder := t.TempDir()
	if got := read(folder); !strings.Contains(got, "has no .safetensors file and no index") {
		t.Error(got)
	}
	put(t, filepath.Join(folder, "a.safetensors"), "w")
	put(t, filepath.Join(folder, "a.fp16.safetensors"), "w")
	if got := read(folder); !strings.Contains(got, "tensor w is in ") || !strings.Contains(got, "two versions of one model?") {
		t.Error(got)
	}
	for _, name := range []string{"a", "b"} {
		write(t, filepath.Join(folder, name+IndexSuffix), `{"weight_map": {"w": "a.safetensors"}}`)
	}
	if got := read(folder); !strings.Contains(got, "has 2 indexes") {
		t.Error(got)
	}
	if got := read(filepath.Join(folder, "a"+IndexSuffix)); got != "a.safetensors:w" {
		t.Error(got)
	}
}

func TestAPipeIsNotWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.safetensors")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(path); !strings.Contains(got, "is no file") {
		t.Error(got)
	}
}

// A 7 B model's file is 14 GB long, of which the disk holds the header alone.
func TestASevenBillionHeader(t *testing.T) {
	var header strings.Builder
	at := int64(0)
	for i := range 3000 {
		fmt.Fprintf(&header, `%s"model.layers.%d.w": {"dtype": "BF16", "shape": [2333, 1000], "data_offsets": [%d, %d]}`, separator(i), i, at, at+4_666_000)
		at += 4_666_000
	}
	start := headed(header.String() + "}")
	path := filepath.Join(t.TempDir(), "seven.safetensors")
	write(t, path, string(start))
	if err := os.Truncate(path, int64(len(start))+at); err != nil {
		t.Fatal(err)
	}
	model, err := Read(path)
	if err != nil || len(model.Tensors) != 3000 || model.Tensors[2999].Name != "model.layers.2999.w" {
		t.Errorf("%d tensors, %v", len(model.Tensors), err)
	}
}

func separator(i int) string {
	if i == 0 {
		return "{"
	}
	return ", "
}
