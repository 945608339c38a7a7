// Package bindings is the planner's door for Python: text in, text out.
//
// gopy makes an extension module of all that is exported here. Whatever crosses is valid UTF-8 without NUL, since the text
// travels as a C string, and no panic crosses, since it would end the Python process.
package bindings

import (
	"errors"
	"fmt"
	"strings"

	"github.com/optimem/optimem/planner/contract"
)

// Plan answers a request of docs/contract.md, JSON both ways, with the bytes that `optimemctl plan - --json` prints. An error
// becomes a RuntimeError with its text.
func Plan(request string) (answer string, err error) {
	return guarded(contract.Respond, request)
}

// guarded calls respond and turns a panic into an error.
func guarded(respond func([]byte) ([]byte, error), request string) (answer string, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			answer, err = "", fmt.Errorf("the planner panicked: %s; report it with the request", contract.Words(fmt.Errorf("%v", cause)))
		}
	}()
	text, err := respond([]byte(request))
	if err != nil {
		return "", errors.New(contract.Words(err))
	}
	return printable(string(text)), nil
}

// printable writes NUL as JSON does, and bytes that are no UTF-8 as U+FFFD.
func printable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", `\u0000`)
}
