package controller

import (
	"io"
	"strings"
	"sync"
	"unicode"
)

// How much of a worker's stderr is kept.
const (
	tailLines = 20
	tailWidth = 400 // bytes of a line
)

// A tail keeps the last lines written to it, each cut to a bounded width, and passes everything on.
//
// A carriage return starts the line anew, as on a terminal, so that a progress bar is one line.
type tail struct {
	next io.Writer // may be nil

	mu      sync.Mutex
	lines   []string // under mu
	line    []byte   // under mu: the line that has no end yet
	restart bool     // under mu: a carriage return was the last byte
}

// Write never fails: a reader of stderr that has gone away must not stop the worker.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range p {
		t.put(b)
	}
	if t.next != nil {
		_, _ = t.next.Write(p)
	}
	return len(p), nil
}

func (t *tail) put(b byte) {
	switch {
	case b == '\n':
		t.end()
		return
	case b == '\r':
		t.restart = true
		return
	case t.restart:
		t.line, t.restart = t.line[:0], false
	}
	if len(t.line) < tailWidth {
		t.line = append(t.line, b)
	}
}

func (t *tail) end() {
	t.lines = appendLine(t.lines, t.line)
	t.line, t.restart = t.line[:0], false
}

// last returns the kept lines, the unfinished one included.
func (t *tail) last() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return appendLine(append([]string(nil), t.lines...), t.line)
}

// appendLine adds a line that is not empty and keeps the last ones.
func appendLine(lines []string, line []byte) []string {
	text := strings.TrimRight(printable(string(line)), " ")
	if text == "" {
		return lines
	}
	lines = append(lines, text)
	return lines[max(0, len(lines)-tailLines):]
}

// printable leaves out what would move a terminal's cursor or is no text.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r), r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
}
