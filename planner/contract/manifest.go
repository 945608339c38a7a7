package contract

import (
	"fmt"

	"github.com/optimem/optimem/internal/strict"
	"github.com/optimem/optimem/planner"
)

// A Manifest is a planner.Manifest, with the ids and notes that a document gives.
type Manifest struct {
	planner.Manifest
	IDs       []ID     // of the units, all different
	Estimated bool     // the times are estimates, not measured
	Notes     []string // for the readers of the answer
}

type manifestDoc struct {
	Version   *whole    `json:"version,omitzero"`
	Model     name      `json:"model,omitzero"`
	Estimated bool      `json:"estimated,omitzero"`
	Notes     []name    `json:"notes,omitempty"`
	Steps     []stepDoc `json:"steps,omitempty"`
	Units     []unitDoc `json:"units"`
	Kept      *whole    `json:"kept_bytes,omitzero"`
}

type stepDoc struct {
	Compute     *whole `json:"compute_ns,omitzero"`
	CPU         *whole `json:"cpu_ns,omitzero"`
	Activations *whole `json:"activation_bytes,omitzero"`
	Crossing    *whole `json:"crossing_bytes,omitzero"`
}

type unitDoc struct {
	ID         *ID    `json:"id,omitzero"`
	Path       *name  `json:"path,omitzero"`
	Kind       name   `json:"kind,omitzero"`
	Bytes      *whole `json:"bytes,omitzero"`
	Parameters *whole `json:"parameters,omitzero"`
	Readers    []name `json:"readers,omitempty"`
	Uses       []span `json:"uses,omitempty"`
	Held       bool   `json:"held,omitzero"`

	// Of the only use, where a manifest has no steps.
	Compute     *whole `json:"compute_ns,omitzero"`
	CPU         *whole `json:"cpu_ns,omitzero"`
	Activations *whole `json:"activation_bytes,omitzero"`
	Crossing    *whole `json:"crossing_bytes,omitzero"`
}

// ReadManifest reads a manifest. An *Error names the field that is wrong.
func ReadManifest(text []byte) (Manifest, error) {
	var doc manifestDoc
	if err := read(text, &doc); err != nil {
		return Manifest{}, err
	}
	return doc.manifest()
}

// FromPlanner makes the manifest of a document from a recording. The id of a unit is its path. Where several units have the same
// path, a number is added.
func FromPlanner(m planner.Manifest) Manifest {
	out := Manifest{Manifest: m, IDs: make([]ID, len(m.Units))}
	taken := newNaming()
	for i, u := range m.Units {
		out.IDs[i] = taken.free(u.Path)
		taken.units[out.IDs[i]] = i
	}
	return out
}

func (d manifestDoc) manifest() (Manifest, error) {
	m := Manifest{
		Manifest:  planner.Manifest{Model: string(d.Model), Recorded: true},
		Estimated: d.Estimated, Notes: texts(d.Notes),
	}
	if err := checkVersion(d.Version); err != nil {
		return m, err
	}
	if len(d.Steps) > mostSteps {
		return m, strict.Fault("steps", "%d are too many: give at most %d", len(d.Steps), mostSteps)
	}
	for _, s := range d.Steps {
		m.Steps = append(m.Steps, s.step())
	}
	m.Kept = size(d.Kept)
	if err := d.addUnits(&m); err != nil {
		return m, err
	}
	return m, checkSums(m.Manifest, len(d.Steps) == 0)
}

// addUnits adds the units, and in the short form a step for each.
func (d manifestDoc) addUnits(m *Manifest) error {
	if len(d.Units) == 0 {
		return strict.Fault("units", "there are none, so there is nothing to plan: give one object for each page or layer")
	}
	if len(d.Steps) == 0 && len(d.Units) > mostSteps {
		return strict.Fault("units", "%d are too many: give at most %d", len(d.Units), mostSteps)
	}
	taken := newNaming()
	for i, u := range d.Units {
		unit, err := u.unit(i)
		if err == nil {
			err = u.checkUses(len(d.Steps))
		}
		if err != nil {
			return strict.Within(fmt.Sprintf("units[%d]", i), err)
		}
		id := u.id(i, taken)
		if other, double := taken.units[id]; double {
			return strict.Fault(fmt.Sprintf("units[%d].id", i), "%s names units[%d] too: give every unit an id of its own", strict.Shown(id.String()), other)
		}
		if len(d.Steps) == 0 {
			unit.Uses = []planner.Use{{First: i, Last: i}}
			m.Steps = append(m.Steps, stepDoc{u.Compute, u.CPU, u.Activations, u.Crossing}.step())
		}
		taken.units[id] = i
		m.Units, m.IDs = append(m.Units, unit), append(m.IDs, id)
	}
	return nil
}

func (s stepDoc) step() planner.Step {
	return planner.Step{Compute: ns(s.Compute), CPU: ns(s.CPU), Activations: size(s.Activations), Crossing: size(s.Crossing)}
}

// bytesPerParameter is the size of a parameter where a document does not count parameters: fp32.
const bytesPerParameter = 4

func (u unitDoc) unit(i int) (planner.Unit, error) {
	if u.Bytes == nil {
		return planner.Unit{}, strict.Fault("bytes", "it is missing: say how many bytes the unit takes on the device")
	}
	size := size(u.Bytes)
	unit := planner.Unit{
		Path: u.path(i), Kind: string(u.Kind), Bytes: size, Readers: texts(u.Readers), Held: u.Held,
		Parameters: or(u.Parameters, int64(size+bytesPerParameter-1)/bytesPerParameter),
	}
	for _, use := range u.Uses {
		unit.Uses = append(unit.Uses, planner.Use{First: use[0], Last: use[1]})
	}
	if unit.Path == "" {
		return unit, strict.Fault("path", "it is empty: name the unit, or leave it out")
	}
	return unit, nil
}

// path is the path of a unit, else its id, else its place in the list.
func (u unitDoc) path(i int) string {
	switch {
	case u.Path != nil:
		return string(*u.Path)
	case u.ID != nil:
		return u.ID.String()
	}
	return fmt.Sprint(i)
}

// id is the id of a unit, else its path, with a number where others have the same path, else its place in the list.
func (u unitDoc) id(i int, taken naming) ID {
	switch {
	case u.ID != nil:
		return *u.ID
	case u.Path != nil:
		return taken.free(string(*u.Path))
	}
	return IntegerID(int64(i))
}

// checkUses wants uses in order and within the steps, and times given either for steps or for units.
func (u unitDoc) checkUses(steps int) error {
	if steps == 0 {
		if len(u.Uses) > 0 {
			return strict.Fault("uses", "the manifest has no steps to use it in: give steps, or compute_ns here in place of uses")
		}
		return nil
	}
	for _, own := range []struct {
		field string
		value *whole
	}{{"compute_ns", u.Compute}, {"cpu_ns", u.CPU}, {"activation_bytes", u.Activations}, {"crossing_bytes", u.Crossing}} {
		if own.value != nil {
			return strict.Fault(own.field, "the manifest has steps, and this belongs to them: give it there, or leave steps and uses out")
		}
	}
	before := -1
	for j, use := range u.Uses {
		field := fmt.Sprintf("uses[%d]", j)
		switch {
		case use[1] < use[0]:
			return strict.Fault(field, "it ends at step %d, before it begins at %d: give [first, last]", use[1], use[0])
		case use[1] >= steps:
			return strict.Fault(field, "it ends at step %d, the last of the %d steps is %d", use[1], steps, steps-1)
		case use[0] <= before:
			return strict.Fault(field, "it begins at step %d, and the use before it ends at %d: give uses in order and apart", use[0], before)
		}
		before = use[1]
	}
	return nil
}

// checkSums wants sums within the limits of the planner. In the short form units have the times.
func checkSums(m planner.Manifest, short bool) error {
	owner := "steps[%d]."
	if short {
		owner = "units[%d]."
	}
	var time, parameters int64
	size := int64(m.Kept)
	for i, s := range m.Steps {
		if time += int64(s.Compute + s.CPU); time > largest {
			return strict.Fault(fmt.Sprintf(owner+"compute_ns", i), "the times on the device and on the CPU so far add up to more than %d ns (2^50, 13 days): are they nanoseconds?", int64(largest))
		}
		if s.Activations+s.Activations/10 > largest {
			return strict.Fault(fmt.Sprintf(owner+"activation_bytes", i), "%d bytes and a tenth, which are reserved, are more than %d (2^50): are they bytes?",
				int64(s.Activations), int64(largest))
		}
	}
	for i, u := range m.Units {
		if size += int64(u.Bytes); size > largest {
			return strict.Fault(fmt.Sprintf("units[%d].bytes", i), "the units so far add up to more than %d bytes (2^50): are they bytes?", int64(largest))
		}
		if parameters += u.Parameters; parameters > largest {
			return strict.Fault(fmt.Sprintf("units[%d].parameters", i), "the units so far add up to more than %d (2^50): leave it out if you do not know", int64(largest))
		}
	}
	if err := m.Check(); err != nil {
		return strict.Fault("", "%v", err)
	}
	return nil
}

// doc is the manifest in the long form.
func (m Manifest) doc() manifestDoc {
	d := manifestDoc{Model: name(m.Model), Estimated: m.Estimated, Notes: names(m.Notes), Kept: some(m.Kept)}
	for _, s := range m.Steps {
		d.Steps = append(d.Steps, stepDoc{this(s.Compute), some(s.CPU), some(s.Activations), some(s.Crossing)})
	}
	for i, u := range m.Units {
		path := name(u.Path)
		one := unitDoc{
			ID: &m.IDs[i], Path: &path, Kind: name(u.Kind), Bytes: this(u.Bytes), Parameters: this(u.Parameters), Readers: names(u.Readers),
			Held: u.Held,
		}
		for _, use := range u.Uses {
			one.Uses = append(one.Uses, span{use.First, use.Last})
		}
		d.Units = append(d.Units, one)
	}
	return d
}
