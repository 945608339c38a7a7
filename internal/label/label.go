// Package label makes the names that a file or a worker gave fit to be shown: a name may hold anything and be of any length.
package label

import (
	"cmp"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/optimem/optimem/planner"
)

// Short is the text on one line of at most most characters, without what would move a cursor or turn the direction of the
// text around it. Of a longer text the middle is left out, for both ends of a path tell it from others.
func Short(text string, most int) string {
	text = Line(ends(text, most))
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	runes := []rune(text)
	head := most / 2
	return string(runes[:head]) + "…" + string(runes[len(runes)-(most-head-1):])
}

// ends cuts a huge text down before anything looks at all of it: what is shown takes 4 bytes a character at most, and as
// much again may be cleaned away.
func ends(text string, most int) string {
	keep := 8 * most
	if len(text) <= 2*keep {
		return text
	}
	return text[:keep] + "…" + text[len(text)-keep:]
}

// Line is the text on one line, without what would move a cursor or turn the direction of the text around it.
func Line(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r), unicode.Is(unicode.Cs, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "?")))
}

// Page names a page by its first unit and how many others it has.
func Page(m planner.Manifest, page planner.Page, most int) string {
	name := Short(m.Units[page.Units[0]].Path, most)
	if more := len(page.Units) - 1; more > 0 {
		name += fmt.Sprintf(" and %d more", more)
	}
	return name
}

// Steps names every step by the first unit that is read from it on, or by its number.
func Steps(m planner.Manifest, most int) []string {
	names := make([]string, len(m.Steps))
	for _, u := range m.Units {
		for _, use := range u.Uses {
			if names[use.First] == "" {
				names[use.First] = Short(u.Path, most)
			}
		}
	}
	for i := range names {
		names[i] = cmp.Or(names[i], fmt.Sprintf("step %d", i+1))
	}
	return names
}
