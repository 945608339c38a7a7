//go:build linux && cgo

package probe

import (
	"context"
	"errors"
	"sync"
)

// NVML reads the cards through an NVML library: the named file, or the driver's own where the name is empty. A machine
// without a driver has no cards; a named library that cannot be used is ErrLibrary; any other fault is a *Fault. Each
// reading initialises NVML and shuts it down again; see Hold. Readings take turns.
//
// A process can use one library in its life, for the linker ties NVML's functions to the first one that has them: choose
// before the first reading, not by First.
func NVML(library string) CardReader { return nvmlReader{&nvmlDoor, library} }

type nvmlReader struct {
	door    *door
	library string
}

func (n nvmlReader) ReadCards(ctx context.Context) (cards []Card, notes Notes, err error) {
	err = n.door.with(ctx, n.library, func(l *library) error {
		cards, notes, err = l.survey(ctx)
		return err
	})
	if absent := (*absence)(nil); errors.As(err, &absent) {
		return []Card{}, Notes{absent.note()}, nil
	}
	return cards, notes, err
}

// survey reads all cards between an Init and a Shutdown.
func (l *library) survey(ctx context.Context) (cards []Card, notes Notes, err error) {
	if err := l.init(); err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, l.shutdown()) }()
	s := surveyor{api: l.api, has: l.has}
	cards, err = s.cards(ctx)
	return cards, s.notes, err
}

// Hold keeps NVML initialised until release is called, which makes the readings in between cheap: where nothing else uses
// the driver, it loads at an Init and unloads at a Shutdown, and that takes up to seconds. On a machine without a driver
// there is nothing to hold, and that is no error. Only the library among the options matters.
func Hold(ctx context.Context, o Options) (release func() error, err error) {
	var held *library
	name := o.library()
	err = nvmlDoor.with(ctx, name, func(l *library) error {
		held = l
		return l.init()
	})
	if absent := (*absence)(nil); errors.As(err, &absent) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
	}
	return sync.OnceValue(func() error {
		return nvmlDoor.with(context.Background(), name, func(*library) error { return held.shutdown() })
	}), nil
}
