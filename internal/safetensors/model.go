package safetensors

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/optimem/optimem/internal/strict"
)

// What names end in.
const (
	Suffix      = ".safetensors"
	IndexSuffix = Suffix + ".index.json"
)

// largestIndex is the longest index that is read, in bytes.
const largestIndex = largestHeader

// A Model is the tensors of one file or of several.
type Model struct {
	Files   []string // paths
	Tensors []Tensor // file by file, in the order of their data
}

// Read reads the headers of a file, of the files that an index names, or of those in a folder.
func Read(path string) (Model, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return Model{}, err
	case info.IsDir():
		return readFolder(path)
	case strings.HasSuffix(path, IndexSuffix):
		return readIndex(path)
	}
	return readFiles([]string{path}, nil)
}

// readFolder reads what the only index of a folder names, or without an index all files.
func readFolder(folder string) (Model, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return Model{}, err
	}
	var indexes, files []string
	for _, entry := range entries {
		switch name := entry.Name(); {
		case entry.IsDir():
		case strings.HasSuffix(name, IndexSuffix):
			indexes = append(indexes, name)
		case strings.HasSuffix(name, Suffix):
			files = append(files, filepath.Join(folder, name))
		}
	}
	switch {
	case len(indexes) == 1:
		return readIndex(filepath.Join(folder, indexes[0]))
	case len(indexes) > 1:
		return Model{}, fmt.Errorf("%s has %d indexes, %s: give the path of one of them", folder, len(indexes), strings.Join(indexes, ", "))
	case len(files) == 0:
		return Model{}, fmt.Errorf("%s has no %s file and no index: give the folder that holds them, or a file", folder, Suffix)
	}
	return readFiles(files, nil)
}

type indexDoc struct {
	Files map[string]strict.Text `json:"weight_map"`
	Other map[string]any         `json:",inline"` // what else there is says nothing to us
}

// readIndex reads the files that an index names.
func readIndex(path string) (Model, error) {
	text, err := readLimited(path)
	if err != nil {
		return Model{}, err
	}
	var doc indexDoc
	if err := strict.ReadForeign(text, &doc); err != nil {
		return Model{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(doc.Files) == 0 {
		return Model{}, fmt.Errorf("%s: weight_map: it names no file: give an index of %s files", path, Suffix)
	}
	at := map[string]string{} // path of a tensor's file
	var files []string
	for _, tensor := range slices.Sorted(maps.Keys(doc.Files)) {
		file := doc.Files[tensor]
		if !filepath.IsLocal(string(file)) || !strings.HasSuffix(string(file), Suffix) {
			return Model{}, fmt.Errorf("%s: weight_map.%s: %q is no %s file beside the index: files of other folders are not read",
				path, strict.Shown(tensor), strict.Shown(string(file)), Suffix)
		}
		at[tensor] = filepath.Join(filepath.Dir(path), string(file))
		files = append(files, at[tensor])
	}
	slices.Sort(files)
	m, err := readFiles(slices.Compact(files), at)
	if err != nil {
		return Model{}, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func readLimited(path string) ([]byte, error) {
	file, _, err := open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, largestIndex+1))
	if err == nil && len(text) > largestIndex {
		err = fmt.Errorf("%s has more than %d bytes: is this an index?", path, largestIndex)
	}
	return text, err
}

// readFiles reads headers. Where an index says in which file each tensor is, at holds it, and only those count.
func readFiles(paths []string, at map[string]string) (Model, error) {
	m := Model{Files: paths}
	home := map[string]string{}
	for _, path := range paths {
		tensors, err := readFile(path)
		if err != nil {
			return Model{}, err
		}
		for _, t := range tensors {
			if at != nil && at[t.Name] != path {
				continue
			}
			if other, double := home[t.Name]; double {
				return Model{}, fmt.Errorf("tensor %s is in %s and in %s: are these two versions of one model? give the path of one file, or of an index",
					strict.Shown(t.Name), other, path)
			}
			home[t.Name] = path
			m.Tensors = append(m.Tensors, t)
		}
	}
	for _, tensor := range slices.Sorted(maps.Keys(at)) {
		if home[tensor] == "" {
			return Model{}, fmt.Errorf("weight_map.%s: %s has no such tensor: do index and files belong together?", strict.Shown(tensor), at[tensor])
		}
	}
	return m, nil
}

func readFile(path string) (tensors []Tensor, err error) {
	file, size, err := open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: is the download complete?", err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	if tensors, err = ReadHeader(file, size); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i := range tensors {
		tensors[i].File = path
	}
	return tensors, nil
}

// open opens what is a file: a pipe would keep whoever opens it waiting.
func open(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is no file: give a %s file", path, Suffix)
	}
	file, err := os.Open(path)
	return file, info.Size(), err
}
