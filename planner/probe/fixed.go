package probe

import "context"

// FixedReading always gives the same reading. It is a Prober, a CardReader and a HostReader, so any part of a reading can
// be put in place of the real one.
type FixedReading struct{ reading Reading }

// Fixed gives r, its cards and its host.
func Fixed(r Reading) FixedReading { return FixedReading{r.clone()} }

// Probe gives the reading.
func (f FixedReading) Probe(ctx context.Context) (Reading, error) {
	return f.reading.clone(), ctx.Err()
}

// ReadCards gives the cards, and the notes of the whole reading.
func (f FixedReading) ReadCards(ctx context.Context) ([]Card, Notes, error) {
	r := f.reading.clone()
	return r.Cards, r.Notes, ctx.Err()
}

// ReadHost gives the host, without notes.
func (f FixedReading) ReadHost(ctx context.Context) (Host, Notes, error) {
	return f.reading.Host, nil, ctx.Err()
}
