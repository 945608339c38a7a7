package planner

// A Manifest is what a worker says of its model.
//
// Before the first forward only the weights are known (Recorded is false, Units are in registration order and have no
// uses). After it Units are in the order of their first use, those that no forward reads last.
type Manifest struct {
	Model    string
	Recorded bool
	Steps    []Step
	Units    []Unit
}

// A Step is what runs between two neighbouring borders (entry or exit of a reader), in execution order.
type Step struct {
	Compute     Nanoseconds // on the device; 0 where not known
	CPU         Nanoseconds // on the CPU; 0 where not known
	Activations Bytes       // device bytes in use during the step that are not weights
	Crossing    Bytes       // bytes of tensors that pass the border at which the step begins
}

// A Unit is the smallest set of weights that must move together.
type Unit struct {
	Path       string   // dotted path of the owner, "layer1.0.conv1"
	Kind       string   // class of the owner, "Conv2d"
	Bytes      Bytes    // as laid out on the device, alignment included
	Parameters int64    // number of elements
	Readers    []string // dotted paths of the modules that read it, in order of first read
	Uses       []Use    // in execution order, none if no forward reads it
	Held       bool     // its bytes are on the device now, and a plan that keeps it resident need not bring them
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
