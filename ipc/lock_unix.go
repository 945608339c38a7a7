//go:build unix && !aix && !solaris

package ipc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// lockBeside takes the lock that goes with a path. The kernel lets go of it when the process ends, however it ends.
func lockBeside(path string) (*os.File, error) {
	for {
		lock, err := tryLock(path + ".lock")
		if err != nil {
			return nil, err
		}
		if stands(lock) {
			return lock, nil
		}
		_ = lock.Close() // its last holder removed it between our opening and our locking it
	}
}

func tryLock(name string) (*os.File, error) {
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, taken()
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return lock, nil
}

// stands tells whether an open file is still the one at its name: a lock on any other keeps nobody out.
func stands(file *os.File) bool {
	held, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(file.Name())
	return err == nil && os.SameFile(held, named)
}

// unlock removes the file while it is still locked, and lets go.
func unlock(lock *os.File) error {
	err := os.Remove(lock.Name())
	if errors.Is(err, fs.ErrNotExist) { // swept away by whoever tidies the directory
		err = nil
	}
	return errors.Join(err, lock.Close())
}

// ownerOf is the user that a file belongs to.
func ownerOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}
