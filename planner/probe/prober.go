package probe

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"
)

// LibraryVariable names another NVML library where Options.Library names none.
const LibraryVariable = "OPTIMEM_NVML_LIBRARY"

// A Prober makes one reading of the machine.
type Prober interface {
	Probe(ctx context.Context) (Reading, error)
}

// A CardReader reads the cards. No card is an answer; the notes say why.
type CardReader interface {
	ReadCards(ctx context.Context) ([]Card, Notes, error)
}

// A HostReader reads the memory of the host.
type HostReader interface {
	ReadHost(ctx context.Context) (Host, Notes, error)
}

// Options say how New reads. The zero value reads this machine afresh at every call.
type Options struct {
	// Library is the NVML library's file, as dlopen takes it: with a slash a path from the working directory or the
	// root, without one a name that the dynamic linker looks up. Empty means $OPTIMEM_NVML_LIBRARY as it is when New is
	// called, and where that is empty too the driver's own. A library named in either way must be there; the driver's
	// own may be missing.
	Library string
	// MaxAge above 0 keeps a reading that long.
	MaxAge time.Duration
	// Now is the clock of MaxAge; nil means time.Now.
	Now func() time.Time
	// Root is where /proc and /sys/fs/cgroup are found; nil means the machine's own.
	Root fs.FS
}

// New is the Prober of this machine.
func New(o Options) Prober {
	p := Machine(NVML(o.library()), HostMemory(o.root()))
	if o.MaxAge <= 0 {
		return p
	}
	return Cached(p, o.MaxAge, o.clock())
}

// Default is New with nothing but a library, which may be empty.
func Default(library string) Prober { return New(Options{Library: library}) }

func (o Options) library() string {
	if o.Library != "" {
		return o.Library
	}
	return os.Getenv(LibraryVariable)
}

func (o Options) root() fs.FS {
	if o.Root != nil {
		return o.Root
	}
	return os.DirFS("/")
}

func (o Options) clock() func() time.Time {
	if o.Now != nil {
		return o.Now
	}
	return time.Now
}

// Machine reads cards and host into one reading.
func Machine(cards CardReader, host HostReader) Prober { return machine{cards, host} }

type machine struct {
	cards CardReader
	host  HostReader
}

func (m machine) Probe(ctx context.Context) (Reading, error) {
	cards, cardNotes, err := m.cards.ReadCards(ctx)
	if err != nil {
		return Reading{}, fmt.Errorf("read the cards: %w", err)
	}
	host, hostNotes, err := m.host.ReadHost(ctx)
	if err != nil {
		return Reading{}, fmt.Errorf("read the host's memory: %w", err)
	}
	r := Reading{OS: runtime.GOOS, Arch: runtime.GOARCH, Cards: cards, Host: host}
	r.Notes = append(append(r.Notes, cardNotes...), hostNotes...)
	return r.clone(), nil
}
