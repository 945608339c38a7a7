package planner

// A rule chooses which pages are resident within room bytes, beside those that must be.
type rule func(drafts []draft, room Bytes) []bool

func all(n int) []bool {
	out := make([]bool, n)
	for i := range out {
		out[i] = true
	}
	return out
}

// even spreads residents over the execution order in proportion to bytes, by carrying what is owed from page to page. The
// first and the last page stream, since they hide behind the end and the start of the neighbouring forwards.
func even(drafts []draft, room Bytes) []bool {
	chosen := make([]bool, len(drafts))
	from, to := ends(drafts)
	var sum Bytes
	for i := from + 1; i < to; i++ {
		if !drafts[i].stays {
			sum += drafts[i].bytes
		}
	}
	if sum == 0 || room <= 0 {
		return chosen
	}
	share := min(1, float64(room)/float64(sum))
	left, owed := room, 0.0
	for i := from + 1; i < to; i++ {
		if drafts[i].stays {
			continue
		}
		size := drafts[i].bytes
		if owed += share * float64(size); owed >= float64(size)/2 && size <= left {
			chosen[i] = true
			left -= size
			owed -= float64(size)
		}
	}
	return chosen
}

// ends are the first and the last page that may stream.
func ends(drafts []draft) (from, to int) {
	from, to = -1, len(drafts)
	for i, d := range drafts {
		if !d.stays {
			if from < 0 {
				from = i
			}
			to = i
		}
	}
	return from, to
}

// front and back are the simple rules of others: whatever fits from the one end, or from the other.
func front(drafts []draft, room Bytes) []bool {
	chosen := make([]bool, len(drafts))
	for i := range drafts {
		room = take(drafts, chosen, i, room)
	}
	return chosen
}

func back(drafts []draft, room Bytes) []bool {
	chosen := make([]bool, len(drafts))
	for i := len(drafts) - 1; i >= 0; i-- {
		room = take(drafts, chosen, i, room)
	}
	return chosen
}

func take(drafts []draft, chosen []bool, i int, room Bytes) Bytes {
	if drafts[i].stays || drafts[i].bytes > room {
		return room
	}
	chosen[i] = true
	return room - drafts[i].bytes
}
