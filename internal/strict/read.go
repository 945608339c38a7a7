package strict

import (
	"bytes"
	"errors"
	"io"
	"reflect"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Read reads one document, an object, into the struct that doc points at. An *Error names the field that is wrong.
func Read(text []byte, doc any) error { return read(text, doc, false) }

// ReadForeign reads a document whose nulls mean what leaving out does, since somebody else says what belongs in it.
func ReadForeign(text []byte, doc any) error { return read(text, doc, true) }

func read(text []byte, doc any, nulls bool) error {
	if err := scan(text, nulls); err != nil {
		return err
	}
	if err := json.Unmarshal(text, doc, json.RejectUnknownMembers(true)); err != nil {
		return meaning(err, reflect.TypeOf(doc))
	}
	return nil
}

// byteOrderMark is what some editors put before a text. JSON has no place for it.
const byteOrderMark = "\uFEFF"

// scan looks for what is wrong whatever the kind of the document is: syntax, doubled fields, null where
// it is not taken, and a second document.
func scan(text []byte, nulls bool) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return Fault("", "the document is empty: give a JSON object")
	}
	if bytes.HasPrefix(text, []byte(byteOrderMark)) {
		return Fault("", "the document begins with a byte order mark (EF BB BF): save it as UTF-8 without one")
	}
	decoder := jsontext.NewDecoder(bytes.NewBuffer(text))
	if kind := decoder.PeekKind(); kind != '{' && kinds[kind] != "" {
		return Fault("", "the document is %s: give a JSON object", kinds[kind])
	}
	for {
		token, err := decoder.ReadToken()
		switch {
		case err != nil:
			return syntax(err)
		case token.Kind() == 'n' && !nulls:
			return Fault(fieldOf(decoder.StackPointer()), "null is no value: leave the field out")
		case decoder.StackDepth() == 0:
			return end(decoder)
		}
	}
}

// end wants nothing behind the document.
func end(decoder *jsontext.Decoder) error {
	after := decoder.InputOffset()
	if _, err := decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return Fault("", "after %d bytes the document is over and something follows it: give one object", after)
	}
	return nil
}
