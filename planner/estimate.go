package planner

import "slices"

// WithEstimates is a manifest in which steps whose time is known on one side alone have one on the other too: in the ratio of
// both sides over all steps that are known on both. A step that was never seen on a side would else look as if it were free
// there. Without any step that is known on both sides nothing can be told, and the manifest stays as it is.
func (m Manifest) WithEstimates() Manifest {
	var device, cpu float64
	for _, s := range m.Steps {
		if s.Compute > 0 && s.CPU > 0 {
			device, cpu = device+float64(s.Compute), cpu+float64(s.CPU)
		}
	}
	if device == 0 {
		return m
	}
	m.Steps = slices.Clone(m.Steps)
	for i, s := range m.Steps {
		if s.Compute == 0 {
			m.Steps[i].Compute = Nanoseconds(float64(s.CPU) * (device / cpu))
		}
		if s.CPU == 0 {
			m.Steps[i].CPU = Nanoseconds(float64(s.Compute) * (cpu / device))
		}
	}
	return m
}
