package probe

import (
	"context"
	"time"
)

// Cached returns the last reading of p while it is younger than maxAge, else a new one. Simultaneous callers share one reading.
// An error is not kept. now is the clock.
func Cached(p Prober, maxAge time.Duration, now func() time.Time) Prober {
	return &cached{prober: p, maxAge: maxAge, now: now, turn: newTurn()}
}

type cached struct {
	prober Prober
	maxAge time.Duration
	now    func() time.Time

	turn  turn // guards the fields below, and is held while a reading is made
	last  Reading
	taken time.Time // when the reading of last began; zero before the first
}

func (c *cached) Probe(ctx context.Context) (Reading, error) {
	if err := c.turn.take(ctx); err != nil {
		return Reading{}, err
	}
	defer c.turn.give()
	begin := c.now()
	if c.fresh(begin) {
		return c.last.clone(), nil
	}
	r, err := c.prober.Probe(ctx)
	if err != nil {
		return Reading{}, err
	}
	c.last, c.taken = r, begin
	return r.clone(), nil
}

// fresh tells whether the last reading is young enough. It is not where the clock went back.
func (c *cached) fresh(now time.Time) bool {
	age := now.Sub(c.taken)
	return !c.taken.IsZero() && age >= 0 && age < c.maxAge
}
