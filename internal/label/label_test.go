package label

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestWhatIsShown(t *testing.T) {
	for text, want := range map[string]string{
		"layer1.0.conv1":            "layer1.0.conv1",
		"a\nb\tc":                   "a b c",
		"\x1b[2Jred":                "[2Jred",
		"a\u202egnp.exe":            "agnp.exe",
		"\xffa":                     "?a",
		"0123456789012345678901234": "0123456789…678901234",
		strings.Repeat("x", 10<<20): "xxxxxxxxxx…xxxxxxxxx",
		"<script>":                  "<script>",
		"  \u200b ":                 "",
	} {
		got := Short(text, 20)
		if got != want {
			t.Errorf("%.40q is shown as %q, want %q", text, got, want)
		}
	}
}

func TestNothingIsLongerThanAsked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(3, 50).Draw(t, "most")
		got := Short(rapid.String().Draw(t, "text"), most)
		if utf8.RuneCountInString(got) > most || !utf8.ValidString(got) {
			t.Errorf("%q is longer than %d", got, most)
		}
	})
}
