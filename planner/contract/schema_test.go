package contract

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	schemaHome   = "https://github.com/optimem/optimem/docs/schema/"
	schemaFolder = "../../docs/schema"
)

// schemas are those of docs/schema, by the name of their document.
func schemas(t testing.TB) map[string]*jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	kinds := []string{"manifest", "machine", "request", "answer"}
	for _, kind := range kinds {
		text, err := os.ReadFile(filepath.Join(schemaFolder, kind+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource(schemaHome+kind+".json", parsed(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string]*jsonschema.Schema{}
	for _, kind := range kinds {
		schema, err := compiler.Compile(schemaHome + kind + ".json")
		if err != nil {
			t.Fatal(err)
		}
		out[kind] = schema
	}
	return out
}

func parsed(t testing.TB, text []byte) any {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return value
}
