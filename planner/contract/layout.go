package contract

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// layout puts every value that holds no object on one line, and all other values member by member.
func layout(text jsontext.Value) ([]byte, error) {
	var out bytes.Buffer
	if err := lay(&out, text, "\n"); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// lay writes one value whose lines begin with indent, a line break included.
func lay(out *bytes.Buffer, value jsontext.Value, indent string) error {
	if kind := value.Kind(); (kind != '{' && kind != '[') || bytes.IndexByte(value[1:], '{') < 0 {
		return layLine(out, value)
	}
	decoder := jsontext.NewDecoder(bytes.NewBuffer(value))
	opening, err := decoder.ReadToken()
	if err != nil {
		return err
	}
	object, inner := opening.Kind() == '{', indent+"  "
	out.WriteByte(value[0])
	for n := 0; decoder.PeekKind() != '}' && decoder.PeekKind() != ']'; n++ {
		if n > 0 {
			out.WriteByte(',')
		}
		out.WriteString(inner)
		if err := layMember(out, decoder, object, inner); err != nil {
			return err
		}
	}
	out.WriteString(indent)
	return out.WriteByte(value[len(value)-1])
}

func layMember(out *bytes.Buffer, decoder *jsontext.Decoder, object bool, indent string) error {
	if object {
		field, err := decoder.ReadValue()
		if err != nil {
			return err
		}
		out.Write(field)
		out.WriteString(": ")
	}
	value, err := decoder.ReadValue()
	if err != nil {
		return err
	}
	return lay(out, value.Clone(), indent)
}

func layLine(out *bytes.Buffer, value jsontext.Value) error {
	line := value.Clone()
	if err := line.Format(jsontext.SpaceAfterColon(true), jsontext.SpaceAfterComma(true)); err != nil {
		return err
	}
	out.Write(line)
	return nil
}
