// Package ipc is what a controller and a worker say to each other, how it is framed, and where it travels.
//
// Everything from the other process is treated as hostile: the peer must be the same user, a frame is walked along the
// schema of its message before anything is decoded, and no declared length is believed that the bytes do not back.
// docs/protocol.md has the protocol in words.
package ipc
