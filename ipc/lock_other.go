//go:build !unix || aix || solaris

package ipc

import (
	"errors"
	"io/fs"
	"os"
)

// lockBeside refuses: this system has no lock that ends with its process, nor does it tell who dials a socket.
func lockBeside(string) (*os.File, error) {
	return nil, errors.New("listening is not supported on this system: use Linux or macOS")
}

func unlock(lock *os.File) error { return lock.Close() }

// ownerOf cannot tell.
func ownerOf(fs.FileInfo) int { return os.Getuid() }
