package planner

// A Manifest describes a model.
//
// Before the first forward only the weights are known: Recorded is false, Units are in the order of registration and have no
// uses. After it Units are in the order of their first use. Units that no forward reads come last.
type Manifest struct {
	Model    string
	Recorded bool
	Steps    []Step
	Units    []Unit
	Kept     Bytes // of weights that are not paged: they stay on the device whole, beside all units
}

// A Step is the computation between two neighbouring borders, in execution order. A border is the entry or the exit of a reader.
type Step struct {
	Compute     Nanoseconds // on the device; 0 where not known
	CPU         Nanoseconds // on the CPU; 0 where not known
	Activations Bytes       // device bytes in use during the step that are not weights
	Crossing    Bytes       // bytes of tensors that pass the border at which the step begins
}

// A Unit is the smallest set of weights that must move together.
type Unit struct {
	Path       string   // dotted path of the owner, such as "layer1.0.conv1"
	Kind       string   // class of the owner, such as "Conv2d"
	Bytes      Bytes    // as laid out on the device, alignment included
	Parameters int64    // number of elements
	Readers    []string // dotted paths of its readers, in the order of their first read
	Uses       []Use    // in execution order; none where no forward reads it
	Held       bool     // its bytes are on the device now: a plan that keeps it resident need not copy them
}

// A Use is an interval of steps, both ends included, during which a reader holds a unit.
type Use struct {
	First, Last int
}

// Weights is the sum of all unit bytes.
func (m Manifest) Weights() Bytes {
	var sum Bytes
	for _, u := range m.Units {
		sum += u.Bytes
	}
	return sum
}
