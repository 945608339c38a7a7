package strict

import "github.com/go-json-experiment/json/jsontext"

// Longest is the most bytes of a text.
const Longest = 4096

// A Text is a text of bounded length.
type Text string

// UnmarshalJSONFrom reads a text.
func (t *Text) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	text, err := ReadText(decoder, "a text")
	*t = Text(text)
	return err
}

// ReadText reads a text; wanted says what to give instead of what is none.
func ReadText(decoder *jsontext.Decoder, wanted string) (string, error) {
	kind := decoder.PeekKind()
	if kind != '"' {
		if _, err := decoder.ReadValue(); err != nil {
			return "", err
		}
		return "", Fault("", "%s is the wrong kind: give %s", kinds[kind], wanted)
	}
	token, err := decoder.ReadToken()
	if err != nil {
		return "", err
	}
	text := token.String()
	if len(text) > Longest {
		return "", Fault("", "a text of %d bytes is too long: give at most %d", len(text), Longest)
	}
	return text, nil
}
