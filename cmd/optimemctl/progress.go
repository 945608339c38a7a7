package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// patience is how long a phase may last, and forwards may go by, before a line without a terminal says so.
const patience = 2 * time.Second

// A progress tells people what is going on until the result is there.
type progress interface {
	phase(text string) // what is being done now
	step(done uint64)  // forwards done so far
	say(line string)   // a line that stays
	close()
}

// newProgress draws a bar on a terminal and writes lines elsewhere. A script has the screen for itself.
func newProgress(request runRequest, w io.Writer) progress {
	total := uint64(request.flags.forwards)
	switch {
	case request.target.script:
		return silent{w}
	case isTerminal(w):
		return newBar(w, total)
	}
	return newLines(w, total)
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// silent says only what must be said.
type silent struct{ w io.Writer }

func (s silent) phase(string)    {}
func (s silent) step(uint64)     {}
func (s silent) say(line string) { _, _ = fmt.Fprintln(s.w, line) }
func (s silent) close()          {}

// lines writes a line where something takes long.
type lines struct {
	total uint64

	mu    sync.Mutex
	w     io.Writer   // under mu
	timer *time.Timer // under mu: writes the line of the phase
	last  time.Time   // under mu: when forwards were last written
}

func newLines(w io.Writer, total uint64) *lines { return &lines{w: w, total: total, last: time.Now()} }

func (l *lines) phase(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopTimer()
	l.timer = time.AfterFunc(patience, func() { l.say(text + " ...") })
}

func (l *lines) step(done uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopTimer()
	if done == 0 || time.Since(l.last) < patience {
		return
	}
	l.last = time.Now()
	_, _ = fmt.Fprintf(l.w, "forward %d of %d done\n", done, l.total)
}

func (l *lines) say(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = fmt.Fprintln(l.w, line)
}

func (l *lines) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopTimer()
}

// stopTimer takes back the line of the last phase. Callers hold mu.
func (l *lines) stopTimer() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

// bar draws the forwards done on a terminal, and what is being done beside it.
type bar struct {
	container *mpb.Progress
	bar       *mpb.Bar
	text      atomic.Pointer[string]
	total     int64
}

func newBar(w io.Writer, total uint64) *bar {
	b := &bar{total: int64(total), container: mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithAutoRefresh())}
	b.phase("starting")
	b.bar = b.container.AddBar(b.total,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.CountersNoUnit("forward %d of %d ")),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + *b.text.Load() })),
	)
	return b
}

func (b *bar) phase(text string) { b.text.Store(&text) }

// step stays below the total until close, where the bar goes away.
func (b *bar) step(done uint64) { b.bar.SetCurrent(int64(min(done, uint64(b.total)-1))) }

func (b *bar) say(line string) { _, _ = fmt.Fprintln(b.container, line) }

func (b *bar) close() {
	b.bar.Abort(true)
	b.container.Wait()
}
