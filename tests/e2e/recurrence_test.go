package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/optimem/optimem/planner"
	"github.com/optimem/optimem/planner/search"
	"pgregory.net/rapid"
)

// A player plays plans on the simulated card through torch's streams, in one Python process.
type player struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	ask    *json.Encoder
	answer *json.Decoder
}

// toyCard is the name of a card that no other process uses.
func toyCard() string { return fmt.Sprintf("recurrence-%d", os.Getpid()) }

func newPlayer(t *testing.T) player {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), python(t), filepath.Join("testdata", "streams.py"))
	cmd.Env = append(os.Environ(), "SIMGPU_CARD="+toyCard(), "SIMGPU_RACES=1", "SIMGPU_FILL_FREED=1", "SIMGPU_HOST_CLOCK=model",
		"SIMGPU_PROFILE=", "SIMGPU_LINK=", "SIMGPU_HOST=", "SIMGPU_CAPACITY=", "SIMGPU_FRAGMENTATION=", "OMP_NUM_THREADS=1")
	cmd.Stderr = os.Stderr
	stdin, errIn := cmd.StdinPipe()
	stdout, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	return player{cmd, stdin, json.NewEncoder(stdin), json.NewDecoder(stdout)}
}

// end lets the process end by itself, and its card with it.
func (p player) end(t *testing.T) {
	t.Helper()
	if err := errors.Join(p.stdin.Close(), p.cmd.Wait()); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob("/dev/shm/simgpu-*-" + toyCard()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// score is what a player is asked to play.
type score struct {
	Latency planner.Nanoseconds   `json:"latency"`
	Rate    planner.Bytes         `json:"rate"`
	Lanes   int                   `json:"lanes"`
	Laps    int                   `json:"laps"`
	Turn    int                   `json:"turn"`
	Arena   planner.Bytes         `json:"arena"`
	Compute []planner.Nanoseconds `json:"compute"`
	Pages   []planner.Bytes       `json:"pages"`
	Copies  []note                `json:"copies"`
}

type note struct {
	Page   int           `json:"page"`
	Offset planner.Bytes `json:"offset"`
	First  int           `json:"first"`
	Last   int           `json:"last"`
	After  int           `json:"after"`
}

// played is what the events told, by lap, in ns from the start of the first.
type played struct {
	StepStart [][]planner.Nanoseconds `json:"step_start"`
	StepEnd   [][]planner.Nanoseconds `json:"step_end"`
	CopyStart [][]planner.Nanoseconds `json:"copy_start"`
	CopyEnd   [][]planner.Nanoseconds `json:"copy_end"`
	Error     string                  `json:"error"`
}

// end is when a lap, counted from 0, ends.
func (p played) end(lap int) planner.Nanoseconds {
	steps := p.StepEnd[lap]
	return steps[len(steps)-1]
}

// lapThatEnds is the lap that ends at that time, -1 where none does. Evaluate runs four laps at least, fewer than were played.
func (p played) lapThatEnds(at planner.Nanoseconds) int {
	for lap := 3; lap < len(p.StepEnd); lap++ {
		if p.end(lap) == at {
			return lap
		}
	}
	return -1
}

// waits is how long steps started after the one before.
func (p played) waits(lap int) []planner.Nanoseconds {
	out := make([]planner.Nanoseconds, len(p.StepStart[lap]))
	before := p.end(lap - 1)
	for s, start := range p.StepStart[lap] {
		out[s] = start - before
		before = p.StepEnd[lap][s]
	}
	return out
}

// mean is how long the laps between two of them took in the mean, rounded up.
func (p played) mean(from, to int) planner.Nanoseconds {
	laps := planner.Nanoseconds(to - from)
	return (p.end(to) - p.end(from) + laps - 1) / laps
}

func (p player) play(t *rapid.T, s score) played {
	var got played
	if err := errors.Join(p.ask.Encode(s), p.answer.Decode(&got)); err != nil {
		t.Fatal(err)
	}
	if got.Error != "" {
		t.Fatal(got.Error)
	}
	return got
}

const (
	most  = 64 // laps that Evaluate runs at most
	cycle = 12 // turns of the ring that hold whole cycles of one to four of them, after which times repeat
)

// follows plays a plan and compares with Evaluate: the first lap, every start, end and wait of the last turn of the ring that
// Evaluate ran, which shows in when it ended, and how long the laps after it took in the mean.
func (p player) follows(t *rapid.T, m planner.Manifest, plan planner.Plan, machine planner.Machine, lanes int) {
	want, err := planner.Evaluate(m, plan, machine)
	if err != nil {
		t.Fatal(err)
	}
	s := scoreOf(m, plan, machine, lanes)
	end, last := want.StepEnd[len(want.StepEnd)-1], -1
	var got played
	for _, soon := range []int{6 * s.Turn, most} {
		if last < 0 {
			s.Laps = soon + cycle*s.Turn
			got = p.play(t, s)
			last = got.lapThatEnds(end)
		}
	}
	same(t, "end of the first lap", want.First, got.end(0))
	if last < 0 {
		t.Fatalf("the recurrence ends a lap at %d ns, the streams never: %d", int64(end), got.StepEnd)
	}
	from := last + 1 - s.Turn
	same(t, "starts of steps", want.StepStart, slices.Concat(got.StepStart[from:last+1]...))
	same(t, "ends of steps", want.StepEnd, slices.Concat(got.StepEnd[from:last+1]...))
	same(t, "starts of copies", want.CopyStart, slices.Concat(got.CopyStart[from:last+1]...))
	same(t, "ends of copies", want.CopyEnd, slices.Concat(got.CopyEnd[from:last+1]...))
	for i, waits := range stalls(plan, want, len(m.Steps)) {
		same(t, "waits of steps", waits, got.waits(from+i))
	}
	if last+1 < most {
		same(t, "period from then on", want.Period, got.mean(last, last+cycle*s.Turn))
	}
}

func same(t *rapid.T, what string, want, got any) {
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%s: - recurrence, + streams\n%s", what, diff)
	}
}

// stalls is how long the recurrence's steps waited for their copies, by lap of a turn.
func stalls(plan planner.Plan, timeline planner.Timeline, steps int) [][]planner.Nanoseconds {
	out := make([][]planner.Nanoseconds, len(timeline.StepStart)/steps)
	for lap := range out {
		out[lap] = make([]planner.Nanoseconds, steps)
	}
	for k, c := range plan.Copies {
		out[k*len(out)/len(plan.Copies)][c.First] += timeline.Stall[k]
	}
	return out
}

func scoreOf(m planner.Manifest, plan planner.Plan, machine planner.Machine, lanes int) score {
	s := score{
		Latency: machine.Link.Latency, Rate: machine.Link.Rate, Lanes: lanes, Turn: max(1, plan.Laps), Arena: plan.Arena,
		Compute: []planner.Nanoseconds{}, Pages: []planner.Bytes{}, Copies: []note{},
	}
	for _, step := range m.Steps {
		s.Compute = append(s.Compute, step.Compute)
	}
	for _, page := range plan.Pages {
		s.Pages = append(s.Pages, page.Bytes)
	}
	for _, c := range plan.Copies {
		s.Copies = append(s.Copies, note{c.Page, c.Offset, c.First, c.Last, c.After})
	}
	return s
}

// toys draws a list whose uses fit as many buffers as said: units used once or again, tiny or large, with steps between that
// use none and steps that take no time.
func toys(t *rapid.T, buffers int) planner.Manifest {
	m := planner.Manifest{Model: "toy", Recorded: true}
	uses := turns(t, buffers)
	for j, use := range uses {
		u := rapid.IntRange(0, 2*j).Draw(t, "unit")
		if u >= len(m.Units) || m.Units[u].Uses[len(m.Units[u].Uses)-1].Last >= use.First {
			u = len(m.Units)
			m.Units = append(m.Units, unit(t, fmt.Sprintf("m%d.u%d", u/2, u)))
		}
		m.Units[u].Uses = append(m.Units[u].Uses, use)
	}
	for range uses[len(uses)-1].Last + 1 + rapid.IntRange(0, 2).Draw(t, "tail") {
		most := rapid.SampledFrom([]int{0, 1000, 100_000, 1_000_000}).Draw(t, "most")
		m.Steps = append(m.Steps, planner.Step{Compute: planner.Nanoseconds(rapid.IntRange(0, most).Draw(t, "compute"))})
	}
	return m
}

// turns draws uses over one step or more, in turn or at the same time, each beginning after the one so many before it.
func turns(t *rapid.T, buffers int) []planner.Use {
	uses := []planner.Use{{}}
	for j := range rapid.IntRange(2, 12).Draw(t, "uses") {
		use := uses[j]
		if j >= buffers {
			use.First = max(use.First, uses[j-buffers+1].Last+1)
		}
		use.First += rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "gap")
		use.Last = max(use.Last, use.First+rapid.SampledFrom([]int{0, 0, 0, 1, 3}).Draw(t, "span"))
		uses = append(uses, use)
	}
	return uses[1:]
}

func unit(t *rapid.T, path string) planner.Unit {
	const piece = planner.Bytes(512) // units are multiples of it
	pieces := rapid.IntRange(1, rapid.SampledFrom([]int{4, 1000}).Draw(t, "most pieces")).Draw(t, "pieces")
	return planner.Unit{Path: path, Readers: []string{path}, Parameters: 1, Bytes: piece * planner.Bytes(pieces)}
}

// links draws a link and its lanes.
func links(t *rapid.T) (planner.Machine, int) {
	lanes := rapid.SampledFrom([]int{1, 4, 16}).Draw(t, "lanes")
	rate := rapid.IntRange(10_000_000, 4_000_000_000).Draw(t, "bytes per second and lane")
	latency := rapid.SampledFrom([]int{0, 1, 777, 10_000}).Draw(t, "latency")
	return planner.Machine{Link: planner.Link{Latency: planner.Nanoseconds(latency), Rate: planner.Bytes(rate * lanes)}}, lanes
}

// buffered is the plan in which all pages stream, use by use, through buffers that hold the largest.
func buffered(m planner.Manifest, buffers int) planner.Plan {
	p := planner.Plan{Mode: planner.ModePage}
	var largest planner.Bytes
	next := make([]int, len(m.Units)) // use of each unit
	for u, unit := range m.Units {
		p.Pages = append(p.Pages, planner.Page{Units: []int{u}, Bytes: unit.Bytes, Placement: planner.Streamed})
		largest = max(largest, unit.Bytes)
	}
	for {
		u := earliest(m, next)
		if u < 0 {
			break
		}
		use := m.Units[u].Uses[next[u]]
		next[u]++
		buffer := planner.Bytes(len(p.Copies) % buffers)
		p.Copies = append(p.Copies, planner.Copy{Page: u, Offset: buffer * largest, First: use.First, Last: use.Last})
	}
	for k := range p.Copies {
		p.Copies[k].After = sameBuffer(k, len(p.Copies), buffers)
	}
	p.Arena = planner.Bytes(buffers) * largest
	p.Budget = p.Arena
	return p
}

// earliest is the unit whose next use comes first, -1 where there is none.
func earliest(m planner.Manifest, next []int) int {
	found := -1
	for u, unit := range m.Units {
		if next[u] == len(unit.Uses) {
			continue
		}
		if use := unit.Uses[next[u]]; found < 0 || before(use, m.Units[found].Uses[next[found]]) {
			found = u
		}
	}
	return found
}

func before(a, b planner.Use) bool { return a.First < b.First || a.First == b.First && a.Last < b.Last }

// sameBuffer is how many places before copy k of a lap the latest other lies that has the same of so many buffers.
func sameBuffer(k, copies, buffers int) int {
	for distance := 1; distance < copies; distance++ {
		if (k-distance+copies)%copies%buffers == k%buffers {
			return distance
		}
	}
	return copies
}

// planned is the planner's own plan, for a budget between the least possible one and all weights. It is false where that
// budget does not do: the planner makes larger pages for a larger one.
func planned(t *rapid.T, m planner.Manifest, machine planner.Machine) (planner.Plan, bool) {
	o := planner.Options{Mode: planner.ModePage, VRAM: planner.Share{Bytes: 1}}
	o.MaxLayerSize = int64(rapid.IntRange(0, 2).Draw(t, "units in a page")) // 0 leaves it to the planner
	var tooSmall *search.TooSmallError
	if _, err := search.Build(m, machine, o); !errors.As(err, &tooSmall) {
		t.Fatalf("got %v for a budget of one byte", err)
	}
	more := max(0, m.Weights()-1-tooSmall.Need)
	o.VRAM.Bytes = tooSmall.Need + more*planner.Bytes(rapid.IntRange(0, 100).Draw(t, "percent of the rest"))/100
	plan, err := search.Build(m, machine, o)
	if err != nil && !errors.As(err, &tooSmall) {
		t.Fatal(err)
	}
	return plan, err == nil
}

func TestTheStreamsFollowThePlannersRecurrence(t *testing.T) {
	p := newPlayer(t)
	defer p.end(t)
	var through [4]int // lists, by the buffers they were streamed through
	var plans, streaming, twoLaps int
	rapid.Check(t, func(t *rapid.T) {
		least := rapid.IntRange(1, 3).Draw(t, "buffers")
		m := toys(t, least)
		machine, lanes := links(t)
		for buffers := least; buffers <= 3; buffers++ {
			plan := buffered(m, buffers)
			if err := plan.Check(m); err != nil {
				t.Fatal(err)
			}
			p.follows(t, m, plan, machine, lanes)
			through[buffers]++
		}
		if plan, ok := planned(t, m, machine); ok {
			p.follows(t, m, plan, machine, lanes)
			plans++
			streaming += min(1, len(plan.Copies))
			twoLaps += plan.Laps / 2
		}
	})
	t.Logf("equal to the ns: %d, %d and %d lists through one, two and three buffers, and %d plans, %d of which stream and %d in turns of two laps",
		through[1], through[2], through[3], plans, streaming, twoLaps)
}
