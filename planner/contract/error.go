package contract

import (
	"errors"
	"strings"

	"github.com/optimem/optimem/internal/label"
	"github.com/optimem/optimem/internal/strict"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
)

// An Error says what is wrong with one field of a document.
type Error = strict.Error

// longestWords is the most characters of the text of an error: names in it can be long.
const longestWords = 1000

// Words are the text of an error for people: one line, without characters that would move a cursor.
func Words(err error) string {
	text := label.Short(strings.TrimPrefix(err.Error(), planner.ErrInvalid.Error()+": "), longestWords)
	if errors.Is(err, search.ErrBroken) {
		text += "; this is a fault of optimem: report it with the request"
	}
	return text
}
