package ipc

import (
	"errors"
	"syscall"
	"testing"
)

// withoutDescriptors runs do while this process can open nothing more.
func withoutDescriptors(t *testing.T, do func()) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}()
	do()
}

func TestWhoDialsWhileDescriptorsAreLackingWaits(t *testing.T) {
	path := socket(t)
	listener := listen(t, path)
	dialed, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dialed.Close() }()
	withoutDescriptors(t, func() {
		for range 2 {
			if _, err := listener.Accept(); !errors.Is(err, ErrExhausted) || !errors.Is(err, syscall.EMFILE) {
				t.Errorf("without descriptors: %v", err)
			}
		}
	})
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatalf("with descriptors: %v", err)
	}
	_ = accepted.Close()
}
