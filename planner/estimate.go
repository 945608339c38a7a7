package planner

import "slices"

// WithEstimates returns the manifest with estimates for steps whose time is known on one side alone. An estimate keeps the ratio
// of both sides over all steps that are known on both. Without it such a step would look as if it took no time on the other
// side. Where no step is known on both sides, there are no estimates.
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
