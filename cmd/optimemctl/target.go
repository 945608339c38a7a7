package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var (
	modelName  = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	dottedName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
	deviceName = regexp.MustCompile(`^([a-z][a-z0-9_]*(:[0-9]+)?|sim(gpu)?:[A-Za-z0-9_./-]+)$`) // sim:MODEL is a profile or its file
	sizeText   = regexp.MustCompile(`^([0-9]{1,5})x([0-9]{1,5})$`)
)

const maxSide = 65_535 // pixels

// A target is what to run.
type target struct {
	text   string
	script bool // a program that calls optimem itself, not a model
}

const targetForms = "give torchvision:NAME, file.py:factory, or script.py"

// parseTarget reads a TARGET and looks whether its file is there.
func parseTarget(text string) (target, error) {
	if name, ok := strings.CutPrefix(text, "torchvision:"); ok {
		if !modelName.MatchString(name) {
			return target{}, fmt.Errorf("TARGET %q names no torchvision model: give torchvision:NAME, for example torchvision:resnet101", text)
		}
		return target{text: text}, nil
	}
	if strings.HasSuffix(text, ".py") {
		return target{text: text, script: true}, readable("TARGET", text)
	}
	file, factory, ok := cutLast(text, ":")
	if !ok || !strings.HasSuffix(file, ".py") {
		return target{}, fmt.Errorf("TARGET %q is not of a known form: %s", text, targetForms)
	}
	if !dottedName.MatchString(factory) {
		return target{}, fmt.Errorf("TARGET %q: %q is not the name of a function in %s", text, factory, file)
	}
	return target{text: text}, readable("TARGET", file)
}

func cutLast(text, by string) (before, after string, found bool) {
	i := strings.LastIndex(text, by)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(by):], true
}

// readable tells what is wrong with a file that has to be read.
func readable(what, path string) error {
	file, err := openFile(path)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return file.Close()
}

// checkSize checks a --size.
func checkSize(text string) error {
	sides := sizeText.FindStringSubmatch(text)
	if sides == nil {
		return fmt.Errorf("--size %q: give WIDTHxHEIGHT in pixels, for example 512x512", text)
	}
	for _, side := range sides[1:] {
		if n, err := strconv.Atoi(side); err != nil || n < 1 || n > maxSide {
			return fmt.Errorf("--size %q: each side must be from 1 to %d pixels", text, maxSide)
		}
	}
	return nil
}

// checkDevice checks the form of a --device; whether there is one is for the worker to find out.
func checkDevice(text string) error {
	if !deviceName.MatchString(text) {
		return fmt.Errorf("--device %q: give auto, cuda, mps, xla, xpu, cpu, sim, sim:MODEL (simgpu profiles lists them), or a PyTorch device such as cuda:1", text)
	}
	return nil
}

// checkModules checks the values of --import.
func checkModules(names []string) error {
	for _, name := range names {
		if !dottedName.MatchString(name) {
			return fmt.Errorf("--import %q: give the name of a Python module, for example torch_xla", name)
		}
	}
	return nil
}

// checkLibrary checks a --nvml-library. A name without a slash is for the dynamic linker to find.
func checkLibrary(path string) error {
	if !strings.Contains(path, "/") {
		return nil
	}
	return readable("--nvml-library", path)
}
