package ipc

import (
	"fmt"
	"reflect"
)

// A Message is a pointer to one of the message types of this package.
type Message any

// messages is the closed set: a name on the wire for every type.
var messages = map[string]reflect.Type{
	"hello":    reflect.TypeFor[Hello](),
	"welcome":  reflect.TypeFor[Welcome](),
	"manifest": reflect.TypeFor[Manifest](),
	"measured": reflect.TypeFor[Measured](),
	"plan":     reflect.TypeFor[Plan](),
	"refused":  reflect.TypeFor[Refused](),
	"report":   reflect.TypeFor[Report](),
	"short":    reflect.TypeFor[Short](),
	"outcome":  reflect.TypeFor[Outcome](),
	"shrink":   reflect.TypeFor[Shrink](),
	"stop":     reflect.TypeFor[Stop](),
	"failure":  reflect.TypeFor[Failure](),
	"bye":      reflect.TypeFor[Bye](),
}

// schemas holds the shape of each message by its name; names holds the name of each message by its type.
var schemas, names = derive()

// A shape says how one value is written on the wire.
type shape struct {
	kind   reflect.Kind // String, Bool, Uint64, Slice or Struct
	name   string       // of the field, for errors
	elem   *shape       // of a slice
	fields []*shape     // of a struct
}

func derive() (map[string]*shape, map[reflect.Type]string) {
	shapes, names := map[string]*shape{}, map[reflect.Type]string{}
	for name, t := range messages {
		shapes[name], names[t] = shapeOf(t, name), name
	}
	return shapes, names
}

func shapeOf(t reflect.Type, name string) *shape {
	s := &shape{kind: t.Kind(), name: name}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Uint64:
	case reflect.Slice:
		s.elem = shapeOf(t.Elem(), name+"[]")
	case reflect.Struct:
		for i := range t.NumField() {
			if field := t.Field(i); field.IsExported() {
				s.fields = append(s.fields, shapeOf(field.Type, name+"."+field.Name))
			}
		}
	default:
		panic(fmt.Sprintf("ipc: %s has a kind that does not travel: %v", name, t))
	}
	return s
}
