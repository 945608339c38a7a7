package probe

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/optimem/optimem/planner"
)

// counting is a Prober that takes a while and says how often it was asked.
type counting struct {
	takes time.Duration
	fault error
	mu    sync.Mutex
	asked int // guarded by mu
}

func (c *counting) Probe(ctx context.Context) (Reading, error) {
	select {
	case <-time.After(c.takes):
	case <-ctx.Done():
		return Reading{}, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	return Reading{Cards: []Card{{FreeBytes: planner.Bytes(c.asked)}}}, c.fault
}

// free is the free memory of the only card.
func free(t *testing.T, p Prober) planner.Bytes {
	t.Helper()
	r, err := p.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r.Cards[0].FreeBytes
}

func TestACachedReadingIsKeptUntilItIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Cached(&counting{}, time.Second, time.Now)
		for _, step := range []struct {
			wait time.Duration
			want planner.Bytes
		}{{0, 1}, {999 * time.Millisecond, 1}, {time.Millisecond, 2}, {time.Hour, 3}} {
			time.Sleep(step.wait)
			if got := free(t, p); got != step.want {
				t.Errorf("after another %v reading %d, want %d", step.wait, got, step.want)
			}
		}
	})
}

func TestACachedReadingIsMadeAnewWhenTheClockGoesBack(t *testing.T) {
	now := time.Unix(1000, 0)
	p := Cached(&counting{}, time.Minute, func() time.Time { return now })
	free(t, p)
	now = now.Add(-time.Hour)
	if got := free(t, p); got != 2 {
		t.Errorf("reading %d, want a second one", got)
	}
}

func TestCallersAtTheSameTimeShareOneReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Cached(&counting{takes: time.Second}, time.Minute, time.Now)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if got := free(t, p); got != 1 {
					t.Errorf("reading %d, want 1", got)
				}
			})
		}
		all.Wait()
	})
}

func TestACallerWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Cached(&counting{takes: time.Hour}, time.Minute, time.Now)
		var slow sync.WaitGroup
		slow.Go(func() { free(t, p) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want context.DeadlineExceeded", err)
		}
		slow.Wait()
	})
}

func TestAnErrorIsNotCached(t *testing.T) {
	c := &counting{fault: errors.New("lost")}
	p := Cached(c, time.Hour, time.Now)
	if _, err := p.Probe(t.Context()); !errors.Is(err, c.fault) {
		t.Errorf("got %v, want the prober's error", err)
	}
	c.fault = nil
	if got := free(t, p); got != 2 {
		t.Errorf("reading %d, want a second one", got)
	}
}

func TestAReadingIsNotSharedWithItsCaller(t *testing.T) {
	p := Cached(Fixed(Reading{Cards: []Card{{Processes: []Process{{PID: 1}}}}}), time.Hour, time.Now)
	for range 2 {
		r, err := p.Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Cards[0].Processes[0].PID; got != 1 {
			t.Errorf("PID %d, want 1: a caller changed the cache", got)
		}
		r.Cards[0].Processes[0].PID = 2
	}
}

// broken is a CardReader that errs.
type broken struct{ error }

func (b broken) ReadCards(context.Context) ([]Card, Notes, error) { return nil, nil, b.error }

func TestFirstTakesTheFirstReaderThatSeesACard(t *testing.T) {
	lost := errors.New("lost")
	none := Fixed(Reading{Notes: Notes{"none here"}})
	one, two := Fixed(Reading{Cards: []Card{{Name: "one"}}}), Fixed(Reading{Cards: []Card{{Name: "two"}}})
	for _, c := range []struct {
		name    string
		readers []CardReader
		want    string
		notes   int
		err     error
	}{
		{"no reader at all", nil, "", 0, nil},
		{"no reader sees a card", []CardReader{none, none}, "", 2, nil},
		{"the second one does", []CardReader{none, two}, "two", 0, nil},
		{"both do", []CardReader{one, two}, "one", 0, nil},
		{"a broken one does not pass for one without cards", []CardReader{broken{lost}, two}, "", 0, lost},
		{"a broken one behind is not asked", []CardReader{one, broken{lost}}, "one", 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cards, notes, err := First(c.readers...).ReadCards(t.Context())
			if !errors.Is(err, c.err) || len(notes) != c.notes {
				t.Errorf("notes %q and error %v, want %d and %v", notes, err, c.notes, c.err)
			}
			if name := firstName(cards); name != c.want {
				t.Errorf("card %q, want %q", name, c.want)
			}
		})
	}
}

func firstName(cards []Card) string {
	if len(cards) == 0 {
		return ""
	}
	return cards[0].Name
}

func TestAMachineJoinsCardsAndHost(t *testing.T) {
	part := Fixed(Reading{Cards: []Card{{Name: "one"}}, Host: Host{TotalBytes: 5}, Notes: Notes{"mind this"}})
	r, err := Machine(part, part).Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Cards[0].Name != "one" || r.Host.TotalBytes != 5 || len(r.Notes) != 1 || r.OS == "" || r.Arch == "" {
		t.Errorf("got %+v", r)
	}
	lost := errors.New("lost")
	if _, err := Machine(broken{lost}, part).Probe(t.Context()); !errors.Is(err, lost) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

func TestAProberWithAnAgeIsCached(t *testing.T) {
	now := time.Unix(1000, 0)
	p := New(Options{MaxAge: time.Minute, Now: func() time.Time { return now }, Root: tree(nil)})
	c, ok := p.(*cached)
	if !ok || c.maxAge != time.Minute || !c.now().Equal(now) {
		t.Errorf("got %+v, want a cached prober with the given clock", p)
	}
	if _, ok := New(Options{MaxAge: time.Minute}).(*cached); !ok {
		t.Error("without a clock there is no cache")
	}
}

func TestTheHostOfThisMachineIsRead(t *testing.T) {
	h, notes, err := HostMemory(os.DirFS("/")).ReadHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h.FreeBytes <= 0 || h.FreeBytes > h.AvailableBytes || h.AvailableBytes > h.TotalBytes {
		t.Errorf("want 0 < free <= available <= total, got %+v", h)
	}
	for _, n := range notes {
		t.Log(n)
	}
}

func TestTheHeadroomOfAGroupBoundsTheHostsFreeMemory(t *testing.T) {
	root := tree(map[string]string{membership: "0::/\n", "sys/fs/cgroup/memory.max": "4096\n", "sys/fs/cgroup/memory.current": "96\n"})
	h, _, err := HostMemory(root).ReadHost(t.Context())
	if err != nil || h.FreeBytes != 4000 {
		t.Errorf("%d bytes free and error %v, want 4000 and none", h.FreeBytes, err)
	}
}

func TestAGroupThatCannotBeReadIsANote(t *testing.T) {
	h, notes, err := HostMemory(tree(map[string]string{membership: "garbage\n"})).ReadHost(t.Context())
	if err != nil || len(notes) != 1 || h.FreeBytes != h.AvailableBytes {
		t.Errorf("notes %q and error %v, want one note and all that is available", notes, err)
	}
}

func TestACardIsFoundByItsUUIDHoweverWritten(t *testing.T) {
	r := Reading{Cards: []Card{{Index: 0}, {Index: 1, UUID: "GPU-ABCdef"}}}
	for uuid, want := range map[string]bool{"GPU-abcdef": true, "abcdef": true, "gpu-ABCDEF": true, "": false, "GPU-": false, "abc": false} {
		if c, ok := r.CardByUUID(uuid); ok != want || ok && c.Index != 1 {
			t.Errorf("%q: card %d, %v; want %v", uuid, c.Index, ok, want)
		}
	}
}

func TestRatesOfLinks(t *testing.T) {
	for _, c := range []struct {
		name              string
		generation, width int
		want              planner.Bytes
	}{
		{"generation 1, 16 lanes", 1, 16, 4_000_000_000},
		{"generation 3, 16 lanes", 3, 16, 15_753_846_144},
		{"generation 4, 8 lanes", 4, 8, 15_753_846_152},
		{"generation 5, 16 lanes", 5, 16, 63_015_384_608},
		{"generation 6, 16 lanes", 6, 16, 121_000_000_000},
		{"a generation to come", 8, 16, 0},
		{"not known", 0, 0, 0},
		{"a width that PCIe does not know", 4, math.MaxInt, 0},
		{"negative numbers", -1, -1, 0},
	} {
		if got := linkRate(c.generation, c.width); got != c.want {
			t.Errorf("%s: %d bytes a second, want %d", c.name, int64(got), int64(c.want))
		}
	}
}

func TestLimits(t *testing.T) {
	none, low, high := Limit{}, upTo(10), upTo(20)
	for _, c := range []struct{ a, b, want Limit }{
		{none, none, none}, {none, low, low}, {low, none, low}, {low, high, low}, {high, low, low}, {none, upTo(0), upTo(0)},
	} {
		if got := c.a.tighter(c.b); got != c.want {
			t.Errorf("the tighter of %+v and %+v is %+v, want %+v", c.a, c.b, got, c.want)
		}
	}
	if none.Of(30) != 30 || low.Of(30) != 10 || low.Of(3) != 3 {
		t.Error("Of does not bound")
	}
	if none.String() != "unlimited" || low.String() != planner.Bytes(10).String() {
		t.Errorf("words %q and %q", none, low)
	}
	if limitOf(math.MaxUint64) != none || limitOf(math.MaxInt64) != none {
		t.Error("the numbers for no limit limit")
	}
}

func TestSizesDoNotWrap(t *testing.T) {
	if got := plus(math.MaxInt64, math.MaxInt64); got != math.MaxInt64 {
		t.Errorf("got %d", int64(got))
	}
}

func TestAReadingAsJSON(t *testing.T) {
	r := Reading{OS: "linux", Arch: "amd64", Cards: []Card{{Name: "one", TotalBytes: 1 << 33, Processes: []Process{{PID: 7, Bytes: 5, Type: Compute}}}}}
	got, err := json.Marshal(Fixed(r).reading)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"os":"linux","arch":"amd64","cards":[{"index":0,"uuid":"","name":"one","driver_version":"","total_bytes":8589934592,` +
		`"free_bytes":0,"used_bytes":0,"reserved_bytes":0,"link":{"generation":0,"width":0,"max_generation":0,"max_width":0,` +
		`"bytes_per_second":0,"max_bytes_per_second":0},"mig":false,"processes":[{"pid":7,"bytes":5,"name":"","type":"compute"}]}],` +
		`"host":{"total_bytes":0,"available_bytes":0,"cgroup":{"version":0,"path":"","tightest":"","headroom":{"limited":false,"bytes":0}},` +
		`"free_bytes":0,"memlock":{"limited":false,"bytes":0},"swap":{"total_bytes":0,"free_bytes":0}},"notes":[]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
