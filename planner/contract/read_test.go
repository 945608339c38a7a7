package contract

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/optimem/optimem/planner"
)

// A lie is a document that is refused, and what the error begins with: the field.
type lie struct {
	text, want string
	unseen     bool // by the schema, which cannot say it
}

const huge = "1125899906842625" // 2^50 + 1

var lies = map[string]map[string]lie{
	"manifest": {
		"nothing":                           {``, "the document is empty", true},
		"a list":                            {`[]`, "the document is a list", false},
		"cut off":                           {`{"units": [{"bytes": 1`, "units[0]: the JSON ends too early", true},
		"no JSON":                           {`{"units": [}`, "units", true},
		"two documents":                     {`{"units": [{"bytes": 1}]} {}`, "after 25 bytes the document is over", true},
		"no units":                          {`{}`, "units: there are none", false},
		"an empty list of units":            {`{"units": []}`, "units: there are none", false},
		"a unit without bytes":              {`{"units": [{"bytes": 1}, {"path": "a"}]}`, "units[1].bytes: it is missing", false},
		"a negative size":                   {`{"units": [{"bytes": 1}, {"bytes": -1}]}`, "units[1].bytes: -1 is negative", false},
		"a fraction":                        {`{"units": [{"bytes": 1.5}]}`, "units[0].bytes: 1.5 is a fraction", false},
		"a size above the largest":          {`{"units": [{"bytes": ` + huge + `}]}`, "units[0].bytes: " + huge + " is too large", false},
		"a size beyond 64 bits":             {`{"units": [{"bytes": 1e300}]}`, "units[0].bytes: 1e300 is too large", false},
		"a size beyond floats":              {`{"units": [{"bytes": 1e999}]}`, "units[0].bytes: 1e999 is too large", false},
		"a size as a text":                  {`{"units": [{"bytes": "1"}]}`, "units[0].bytes: a text is the wrong kind", false},
		"a size that is null":               {`{"units": [{"bytes": null}]}`, "units[0].bytes: null is no value", false},
		"sizes whose sum is absurd":         {`{"units": [{"bytes": 1e15}, {"bytes": 1e15}]}`, "units[1].bytes: the units so far", true},
		"parameters whose sum is absurd":    {`{"units": [{"bytes": 1, "parameters": 1e15}, {"bytes": 1, "parameters": 1e15}]}`, "units[1].parameters: the units so far", true},
		"times whose sum is absurd":         {`{"units": [{"bytes": 1, "compute_ns": 1e15}, {"bytes": 1, "compute_ns": 1e15}]}`, "units[1].compute_ns: the times", true},
		"times of steps with an absurd sum": {`{"steps": [{"compute_ns": 1e15}, {"cpu_ns": 1e15}], "units": [{"bytes": 1}]}`, "steps[1].compute_ns: the times", true},
		"a negative time":                   {`{"steps": [{}, {"compute_ns": -7}], "units": [{"bytes": 1}]}`, "steps[1].compute_ns: -7 is negative", false},
		"a negative time on the CPU":        {`{"units": [{"bytes": 1, "cpu_ns": -7}]}`, "units[0].cpu_ns: -7 is negative", false},
		"negative activations":              {`{"units": [{"bytes": 1, "activation_bytes": -7}]}`, "units[0].activation_bytes: -7 is negative", false},
		"an unknown field":                  {`{"units": [{"bytes": 1, "size": 1}]}`, "units[0].size: there is no such field", false},
		"an unknown field at the top":       {`{"units": [{"bytes": 1}], "layers": 3}`, "layers: there is no such field", false},
		"an unknown field of a step":        {`{"steps": [{"ns": 1}], "units": [{"bytes": 1}]}`, "steps[0].ns: there is no such field", false},
		"a field twice":                     {`{"units": [{"bytes": 1, "bytes": 2}]}`, "units[0].bytes: it is there twice", true},
		"an id twice":                       {`{"units": [{"id": 7, "bytes": 1}, {"bytes": 1}, {"id": 7, "bytes": 1}]}`, "units[2].id: 7 names units[0] too", true},
		"an id that is another's path":      {`{"units": [{"path": "a", "bytes": 1}, {"id": "a", "bytes": 1}]}`, "units[1].id: a names units[0] too", true},
		"an id that is a fraction":          {`{"units": [{"id": 1.5, "bytes": 1}]}`, "units[0].id: 1.5 is no id", false},
		"an id that is empty":               {`{"units": [{"id": "", "bytes": 1}]}`, "units[0].id: it is empty", false},
		"an id that is a list":              {`{"units": [{"id": [], "bytes": 1}]}`, "units[0].id: a list is the wrong kind", false},
		"an empty path":                     {`{"units": [{"path": "", "bytes": 1}]}`, "units[0].path: it is empty", false},
		"a path that is a number":           {`{"units": [{"path": 3, "bytes": 1}]}`, "units[0].path: a number is the wrong kind", false},
		"a path that is too long":           {`{"units": [{"path": "` + strings.Repeat("x", 4097) + `", "bytes": 1}]}`, "units[0].path: a text of 4097 bytes is too long", false},
		"a use before the steps":            {`{"steps": [{}], "units": [{"bytes": 1, "uses": [[-1, 0]]}]}`, "units[0].uses[0]: -1 is no step", false},
		"a use behind the steps":            {`{"steps": [{}], "units": [{"bytes": 1, "uses": [[0, 1]]}]}`, "units[0].uses[0]: it ends at step 1", true},
		"a use that ends before it begins":  {`{"steps": [{}, {}], "units": [{"bytes": 1, "uses": [[1, 0]]}]}`, "units[0].uses[0]: it ends at step 0", true},
		"uses out of order":                 {`{"steps": [{}, {}], "units": [{"bytes": 1, "uses": [[1, 1], [0, 0]]}]}`, "units[0].uses[1]: it begins at step 0", true},
		"uses that overlap":                 {`{"steps": [{}, {}], "units": [{"bytes": 1, "uses": [[0, 1], [1, 1]]}]}`, "units[0].uses[1]: it begins at step 1", true},
		"a use of three steps":              {`{"steps": [{}], "units": [{"bytes": 1, "uses": [[0, 0, 0]]}]}`, "units[0].uses[0]: a use is a list of two steps", false},
		"a use that is a number":            {`{"steps": [{}], "units": [{"bytes": 1, "uses": [0]}]}`, "units[0].uses[0]: a use is a list of two steps", false},
		"a use that is two lists":           {`{"steps": [{}], "units": [{"bytes": 1, "uses": [[0, 0], [[0], [0]]]}]}`, "units[0].uses[1]: a use is a list of two steps", false},
		"a use in a list of its own":        {`{"steps": [{}], "units": [{"bytes": 1, "uses": [[[0, 0]]]}]}`, "units[0].uses[0]: a use is a list of two steps", false},
		"activations and a tenth":           {`{"units": [{"bytes": 1}, {"bytes": 1, "activation_bytes": 1125899906842624}]}`, "units[1].activation_bytes: 1125899906842624 bytes and a tenth", true},
		"activations of a step":             {`{"steps": [{"activation_bytes": 1.1e15}], "units": [{"bytes": 1}]}`, "steps[0].activation_bytes: 1100000000000000 bytes and a tenth", true},
		"uses without steps":                {`{"units": [{"bytes": 1, "uses": [[0, 0]]}]}`, "units[0].uses: the manifest has no steps", false},
		"times in two places":               {`{"steps": [{}], "units": [{"bytes": 1, "compute_ns": 1}]}`, "units[0].compute_ns: the manifest has steps", false},
		"a version from the future":         {`{"version": 2, "units": [{"bytes": 1}], "engines": 4}`, "version: 2 is not known: this optimem knows version 1", false},
		"text that is no UTF-8":             {"{\"model\": \"\xff\", \"units\": [{\"bytes\": 1}]}", "model", true},
	},
	"machine": {
		"a negative budget":       {`{"budget_bytes": -1}`, "budget_bytes: -1 is negative", false},
		"no budget":               {`{"budget_bytes": 0}`, "budget_bytes: 0 leaves nothing", false},
		"a budget with a unit":    {`{"budget_bytes": "6GiB"}`, "budget_bytes: a text is the wrong kind", false},
		"a link without a rate":   {`{"link": {"latency_ns": 5}}`, "link.bytes_per_second: it is missing or 0", false},
		"a link that moves none":  {`{"link": {"bytes_per_second": 0}}`, "link.bytes_per_second: it is missing or 0", false},
		"a negative latency":      {`{"link": {"latency_ns": -1, "bytes_per_second": 1}}`, "link.latency_ns: -1 is negative", false},
		"an unknown field inside": {`{"host": {"rate": 1}}`, "host.rate: there is no such field", false},
		"a rate beyond 2^50":      {`{"host": {"bytes_per_second": ` + huge + `}}`, "host.bytes_per_second: " + huge + " is too large", false},
	},
	"request": {
		"no manifest":              {`{"options": {"vram": "50%"}}`, "manifest: it is missing", false},
		"a lie in the manifest":    {`{"manifest": {"units": [{"bytes": -1}]}}`, "manifest.units[0].bytes: -1 is negative", false},
		"a double id in it":        {`{"manifest": {"units": [{"id": 1, "bytes": 1}, {"id": 1, "bytes": 1}]}}`, "manifest.units[1].id: 1 names", true},
		"a lie in the machine":     {`{"manifest": {"units": [{"bytes": 1}]}, "machine": {"link": {}}}`, "machine.link.bytes_per_second", false},
		"an unknown mode":          {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"mode": "fast"}}`, `options.mode: "fast" is no mode`, false},
		"a share of nothing":       {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"vram": "0%"}}`, `options.vram: "0%" is no share`, true},
		"an empty share":           {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"vram": ""}}`, `options.vram: it is empty`, false},
		"a share that is no size":  {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"vram": "lots"}}`, `options.vram: "lots" is neither`, false},
		"a negative share":         {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"vram": -5}}`, `options.vram: -5 is negative`, false},
		"a link that is none":      {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"link": "pcie9x3"}}`, `options.link: "pcie9x3" is no link`, false},
		"a budget that is none":    {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"curve": ["5%", "x"]}}`, `options.curve[1]: "x" is neither`, false},
		"a flag that is a number":  {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"pages_as_given": 1}}`, "options.pages_as_given: a number is the wrong kind: give true or false", false},
		"more budgets than many":   {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"curve": [1` + strings.Repeat(", 1", 256) + `]}}`, "options.curve: 257 budgets are too many", false},
		"a capacity in percent":    {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"max_capacity": "5%"}}`, `options.max_capacity: "5%" is no capacity`, false},
		"a later manifest":         {`{"manifest": {"version": 2, "units": [{"bytes": 1, "warp": 1}]}}`, "manifest.version: 2 is not known", false},
		"a later machine":          {`{"manifest": {"units": [{"bytes": 1}]}, "machine": {"version": 2, "warp": 1}}`, "machine.version: 2 is not known", false},
		"a later option":           {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"version": 2, "warp": 1}}`, "options.version: 2 is not known", false},
		"a version of the options": {`{"manifest": {"units": [{"bytes": 1}]}, "options": {"version": 3}}`, "options.version: 3 is not known", false},
	},
}

func TestALieIsRefusedByItsField(t *testing.T) {
	readers := map[string]func([]byte) error{
		"manifest": func(text []byte) error { _, err := ReadManifest(text); return err },
		"machine":  func(text []byte) error { _, err := ReadMachine(text); return err },
		"request":  func(text []byte) error { _, err := ReadRequest(text); return err },
	}
	known := schemas(t)
	for kind, all := range lies {
		for name, lie := range all {
			err := readers[kind]([]byte(lie.text))
			var ours *Error
			if !errors.As(err, &ours) || !strings.HasPrefix(err.Error(), lie.want) {
				t.Errorf("%s, %s: %v, want %s", kind, name, err, lie.want)
			}
			if !lie.unseen && known[kind].Validate(parsed(t, []byte(lie.text))) == nil {
				t.Errorf("%s, %s: the schema takes it", kind, name)
			}
		}
	}
}

func TestWhatIsLeftOut(t *testing.T) {
	m, err := ReadManifest([]byte(`{"units": [{"bytes": 5, "compute_ns": 3.0e0}, {"path": "a", "bytes": 8}, {"path": "a", "bytes": 0}, {"id": -4, "bytes": 1}]}`))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintln(m.IDs, m.Units[0].Path, m.Units[0].Parameters, m.Steps[0].Compute, m.Units[3].Path, m.Units[3].Uses)
	if got != "[0 a a#2 -4] 0 2 3 ns -4 [{3 3}]\n" {
		t.Error(got)
	}
	machine, err := ReadMachine([]byte(`{"link": {"bytes_per_second": 7}}`))
	if want := (Machine{Machine: planner.Machine{Link: planner.Link{Latency: UsualLatency, Rate: 7}}}); err != nil || machine != want {
		t.Errorf("%+v, %v", machine, err)
	}
	request, err := ReadRequest([]byte(`{"manifest": {"units": [{"bytes": 5}]}}`))
	if err != nil || request.Options.Mode != planner.ModePage || request.Options.Curve != nil {
		t.Errorf("%+v, %v", request, err)
	}
}

func TestLinks(t *testing.T) {
	for text, want := range map[string]planner.Bytes{
		"pcie3x16": 12_400_000_000, "PCIe4x8": 12_500_000_000, " pcie5x1 ": 3_500_000_000, "12GB/s": 12_000_000_000, "12e9": 12_000_000_000,
		"1GiB": 1 << 30,
	} {
		if got, err := ParseLink(text); err != nil || got != (planner.Link{Latency: UsualLatency, Rate: want}) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "pcie4", "pcie4x3", "fast", "0", "-5", "50%", "1e99GB/s"} {
		if got, err := ParseLink(text); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func TestAnIDMayBeWrittenAsAFloat(t *testing.T) {
	m, err := ReadManifest([]byte(`{"units": [{"id": 1.0, "bytes": 1}, {"id": -2e3, "bytes": 1}, {"id": 9007199254740992, "bytes": 1}]}`))
	if got := fmt.Sprint(m.IDs); err != nil || got != "[1 -2000 9007199254740992]" {
		t.Errorf("%s, %v", got, err)
	}
	for _, id := range []string{"0.5", "9007199254740993", "-9007199254740993", "1e17", "1e999"} {
		if m, err := ReadManifest([]byte(`{"units": [{"id": ` + id + `, "bytes": 1}]}`)); err == nil || !strings.HasPrefix(err.Error(), "units[0].id: "+id+" is no id") {
			t.Errorf("%s: %v, %v", id, m.IDs, err)
		}
	}
}
