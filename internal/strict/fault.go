package strict

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// An Error says what is wrong with one field of a document.
type Error struct {
	Field string // units[3].bytes; empty for the document itself
	Text  string // what is wrong, and what to do
}

func (e *Error) Error() string {
	if e.Field == "" {
		return e.Text
	}
	return e.Field + ": " + e.Text
}

// Fault is an *Error.
func Fault(field, format string, args ...any) error {
	return &Error{field, fmt.Sprintf(format, args...)}
}

// Within puts what is wrong into the larger document in which the field lies.
func Within(field string, err error) error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &e):
		return fmt.Errorf("%s: %w", field, err)
	case e.Field == "":
		return &Error{field, e.Text}
	case strings.HasPrefix(e.Field, "["):
		return &Error{field + e.Field, e.Text}
	}
	return &Error{field + "." + e.Field, e.Text}
}

// syntax puts a fault of the syntax into our words.
func syntax(err error) error {
	var s *jsontext.SyntacticError
	switch {
	case !errors.As(err, &s):
		return Fault("", "%v", err)
	case errors.Is(err, jsontext.ErrDuplicateName):
		return Fault(fieldOf(s.JSONPointer), "it is there twice: keep one")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Fault(fieldOf(s.JSONPointer), "the JSON ends too early, after %d bytes: is the text cut off?", s.ByteOffset)
	}
	return Fault(fieldOf(s.JSONPointer), "after %d bytes this is no JSON any more: %v", s.ByteOffset, s.Err)
}

// meaning puts what does not fit a type into our words.
func meaning(err error, root reflect.Type) error {
	var s *json.SemanticError
	var ours *Error
	switch {
	case !errors.As(err, &s):
		return syntax(err)
	case errors.Is(s.Err, json.ErrUnknownName):
		return Fault(fieldOf(s.JSONPointer), "there is no such field: %s", known(root, s.JSONPointer.Parent()))
	case errors.As(err, &ours):
		return Fault(fieldOf(s.JSONPointer), "%s", ours.Text)
	}
	return Fault(fieldOf(s.JSONPointer), "%s is the wrong kind: give %s", kinds[s.JSONKind], expected(s.GoType))
}

// longestField is where the name of a field that lies deep is cut, in bytes.
const longestField = 200

// fieldOf writes /units/3/bytes as units[3].bytes.
func fieldOf(pointer jsontext.Pointer) string {
	var out strings.Builder
	for token := range pointer.Tokens() {
		switch {
		case token != "" && strings.Trim(token, "0123456789") == "":
			out.WriteString("[" + Shown(token) + "]")
		case out.Len() > 0:
			out.WriteString("." + Shown(token))
		default:
			out.WriteString(Shown(token))
		}
		if out.Len() > longestField {
			return strings.ToValidUTF8(out.String()[:longestField], "") + "…"
		}
	}
	return out.String()
}

// Shown is a foreign text, short and printable.
func Shown(text string) string {
	const most = 60
	if utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most]) + "..."
	}
	quoted := fmt.Sprintf("%q", text)
	if inner := quoted[1 : len(quoted)-1]; inner != text {
		return quoted
	}
	return text
}

var kinds = map[jsontext.Kind]string{
	'n': "null", 'f': "a truth value", 't': "a truth value", '"': "a text", '0': "a number", '{': "an object", '[': "a list",
}

// expected names what a type is read from.
func expected(t reflect.Type) string {
	if t == nil {
		return "another one"
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Float64:
		return "a number"
	}
	return "a text"
}

// known lists the fields of the object at a place of a document.
func known(t reflect.Type, at jsontext.Pointer) string {
	for token := range at.Tokens() {
		if t = inside(t, token); t == nil {
			return "leave it out"
		}
	}
	if t = plain(t); t.Kind() != reflect.Struct {
		return "leave it out"
	}
	var names []string
	for i := range t.NumField() {
		names = append(names, nameOf(t.Field(i)))
	}
	return "leave it out, or give one of " + strings.Join(names, ", ")
}

// inside is the type of a member, nil where there is none.
func inside(t reflect.Type, token string) reflect.Type {
	if t = plain(t); t.Kind() == reflect.Slice {
		return t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		if nameOf(t.Field(i)) == token {
			return t.Field(i).Type
		}
	}
	return nil
}

func plain(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

func nameOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
