package contract

import (
	"github.com/optimem/optimem/internal/strict"
	"github.com/optimem/optimem/planner"
)

// A Machine is a planner.Machine, with the budget that a document gives.
type Machine struct {
	planner.Machine
	Budget planner.Bytes // device bytes for weights alone; 0 where the document does not say
}

type machineDoc struct {
	Version *whole   `json:"version,omitzero"`
	Budget  *whole   `json:"budget_bytes,omitzero"`
	Free    *whole   `json:"free_bytes,omitzero"`
	Link    *linkDoc `json:"link,omitzero"`
	Host    *hostDoc `json:"host,omitzero"`

	Crossing *linkDoc `json:"crossing,omitzero"`
}

type linkDoc struct {
	Latency *whole `json:"latency_ns,omitzero"`
	Rate    *whole `json:"bytes_per_second,omitzero"`
}

type hostDoc struct {
	Rate      *whole `json:"bytes_per_second,omitzero"`
	CrossRate *whole `json:"cross_bytes_per_second,omitzero"`
}

// ReadMachine reads a machine. An *Error names the field that is wrong.
func ReadMachine(text []byte) (Machine, error) {
	var doc machineDoc
	if err := read(text, &doc); err != nil {
		return Machine{}, err
	}
	return doc.machine()
}

func (d machineDoc) machine() (Machine, error) {
	var m Machine
	if err := checkVersion(d.Version); err != nil {
		return m, err
	}
	if d.Budget != nil && *d.Budget == 0 {
		return m, strict.Fault("budget_bytes", "0 leaves nothing for weights: give more, or leave it out")
	}
	m.Budget, m.Free = size(d.Budget), size(d.Free)
	if d.Host != nil {
		m.Host = planner.Host{Rate: size(d.Host.Rate), CrossRate: size(d.Host.CrossRate)}
	}
	var err error
	if m.Link, err = d.Link.link("link"); err == nil {
		m.Crossing, err = d.Crossing.link("crossing")
	}
	return m, err
}

// link reads a link that may be left out.
func (d *linkDoc) link(field string) (planner.Link, error) {
	if d == nil {
		return planner.Link{}, nil
	}
	if or(d.Rate, 0) == 0 {
		return planner.Link{}, strict.Fault(field+".bytes_per_second", "it is missing or 0: give bytes per second, or leave %s out", field)
	}
	return planner.Link{Latency: planner.Nanoseconds(or(d.Latency, int64(UsualLatency))), Rate: size(d.Rate)}, nil
}

// docOf writes a link; nil where it is not known.
func docOf(link planner.Link) *linkDoc {
	if link.Rate == 0 {
		return nil
	}
	return &linkDoc{this(link.Latency), this(link.Rate)}
}

func (m Machine) doc() machineDoc {
	d := machineDoc{Budget: some(m.Budget), Free: some(m.Free), Link: docOf(m.Link), Crossing: docOf(m.Crossing)}
	if m.Host != (planner.Host{}) {
		d.Host = &hostDoc{some(m.Host.Rate), some(m.Host.CrossRate)}
	}
	return d
}
