package planner

import "fmt"

// A Placement says where the bytes of a page are and which engine computes with them. Its facts stand in a row of the table
// placements. The zero value is Streamed.
type Placement uint8

// The placements. Among plans that are equally good the search prefers by this order, so a new one goes last.
const (
	Streamed Placement = iota // in RAM; takes arena bytes for each use
	Resident                  // on the device for the whole session
	OnCPU                     // in RAM; its readers compute on the CPU
	Unread                    // in RAM; no recorded forward reads it
)

// A placing is what there is to know of a placement.
type placing struct {
	is      Placement
	name    string // on the wire and in JSON
	phrase  string // of a page, for people
	meaning string // in a legend, for people

	stays   bool // its bytes are on the device for the whole session and count as Plan.Resident
	streams bool // its bytes cross the link into the arena for each use
	byCPU   bool // its readers compute on the CPU
	unread  bool // no recorded forward reads it
}

// placements has one row per placement, in the order in which people are shown them.
var placements = []placing{
	{is: Resident, name: "resident", phrase: "resident", meaning: "stays on the card", stays: true},
	{is: Streamed, name: "streamed", phrase: "streamed", meaning: "brought in for each use", streams: true},
	{is: OnCPU, name: "cpu", phrase: "on the CPU", meaning: "stays in RAM, the CPU computes", byCPU: true},
	{is: Unread, name: "unread", phrase: "unread", meaning: "stays in RAM, never read", unread: true},
}

// Placements returns all placements, in the order in which people are shown them.
func Placements() []Placement {
	all := make([]Placement, len(placements))
	for i, row := range placements {
		all[i] = row.is
	}
	return all
}

// ParsePlacement reads the name of a placement, such as "streamed". The error lists the names that there are.
func ParsePlacement(name string) (Placement, error) {
	for _, row := range placements {
		if row.name == name {
			return row.is, nil
		}
	}
	return 0, fmt.Errorf("%q is no placement: give one of %v", name, Placements())
}

// row finds the facts. A value that is no placement has none: it has no name and is nowhere.
func (p Placement) row() placing {
	for _, row := range placements {
		if row.is == p {
			return row
		}
	}
	return placing{name: fmt.Sprintf("placement %d", uint8(p))}
}

// String is the name on the wire, such as "streamed".
func (p Placement) String() string { return p.row().name }

// Phrase says for people where a page is, such as "on the CPU".
func (p Placement) Phrase() string { return p.row().phrase }

// Meaning explains the placement to people, such as "stays in RAM, the CPU computes".
func (p Placement) Meaning() string { return p.row().meaning }

// Stays tells whether the bytes are on the device for the whole session. They count as Plan.Resident.
func (p Placement) Stays() bool { return p.row().stays }

// Streams tells whether the bytes cross the link for each use, into the arena.
func (p Placement) Streams() bool { return p.row().streams }

// ByCPU tells whether the readers compute on the CPU.
func (p Placement) ByCPU() bool { return p.row().byCPU }

// Unread tells whether no recorded forward reads a page that is placed so.
func (p Placement) Unread() bool { return p.row().unread }
