package contract

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/optimem/optimem/planner"
)

var example = regexp.MustCompile("(?ms)^```json (\\w+)\n(.*?)^```$")

// examples are those of docs/contract.md, by the kind of document.
func examples(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, parts := range example.FindAllStringSubmatch(string(text), -1) {
		out[parts[1]] = append(out[parts[1]], parts[2])
	}
	return out
}

func TestEveryExampleIsAnswered(t *testing.T) {
	known, found := schemas(t), examples(t)
	if len(found["manifest"]) < 3 || len(found["machine"]) < 2 || len(found["request"]) < 1 {
		t.Fatalf("examples are missing: %v", found)
	}
	requests := found["request"]
	for _, machine := range found["machine"] {
		for _, manifest := range found["manifest"] {
			requests = append(requests, `{"manifest": `+manifest+`, "machine": `+machine+`}`)
		}
	}
	for kind, texts := range found {
		for _, text := range texts {
			if err := known[kind].Validate(parsed(t, []byte(text))); err != nil {
				t.Errorf("%v in %s", err, text)
			}
		}
	}
	for _, request := range requests {
		answer, err := Respond([]byte(request))
		if err != nil {
			t.Errorf("%v of %s", err, request)
			continue
		}
		if err := known["answer"].Validate(parsed(t, answer)); err != nil {
			t.Errorf("%v in %s", err, answer)
		}
		if again, err := Respond([]byte(request)); err != nil || string(again) != string(answer) {
			t.Errorf("the second answer to %s is another one", request)
		}
	}
}

// Whatever field a schema knows the page explains.
func TestThePageNamesEveryField(t *testing.T) {
	page, err := os.ReadFile("../../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"manifest", "machine", "request", "answer"} {
		text, err := os.ReadFile(schemaFolder + "/" + kind + ".json")
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range fields(parsed(t, text)) {
			if !strings.Contains(string(page), field) {
				t.Errorf("%s.json knows %s, the page does not", kind, field)
			}
		}
	}
}

// fields are the names in all "properties" of a schema.
func fields(schema any) (out []string) {
	switch node := schema.(type) {
	case map[string]any:
		for key, value := range node {
			if properties, ok := value.(map[string]any); ok && key == "properties" {
				for name := range properties {
					out = append(out, name)
				}
			}
			out = append(out, fields(value)...)
		}
	case []any:
		for _, value := range node {
			out = append(out, fields(value)...)
		}
	}
	return out
}

// Whatever placement and mode the planner knows, the schemas and the pages name.
func TestEveryPlacementAndModeIsNamed(t *testing.T) {
	placements, modes := words(planner.Placements()), words(planner.Modes())
	for file, names := range map[string][]string{
		"schema/answer.json": slices.Concat(placements, modes), "schema/request.json": modes,
		"contract.md": slices.Concat(placements, modes), "protocol.md": slices.Concat(placements, modes),
	} {
		text, err := os.ReadFile("../../docs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		quote := "`"
		if strings.HasSuffix(file, ".json") {
			quote = `"`
		}
		for _, name := range names {
			if !strings.Contains(string(text), quote+name+quote) {
				t.Errorf("docs/%s does not name %s", file, name)
			}
		}
	}
}

func words[T any](values []T) (out []string) {
	for _, v := range values {
		out = append(out, fmt.Sprint(v))
	}
	return out
}
