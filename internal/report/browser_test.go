package report

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// shotsVariable names a folder to leave pictures of the pages in.
const shotsVariable = "OPTIMEM_SHOTS"

// browsers are the names of those that the test can use; tools/browser knows the same.
var browsers = []string{
	"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
}

// browser starts a headless one. Without any the test fails: a page that nobody looked at is not tested.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range browsers {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("no chromium or google-chrome is installed: install one (apt-get install chromium, or make browser as root)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WSURLReadTimeout(time.Minute))
	ctx, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx
}

// A look is one way of opening a page.
type look struct {
	width, height int64
	scheme        scheme
}

// A scheme of colours.
type scheme string

var looks = []look{{1280, 900, "light"}, {1280, 900, "dark"}, {390, 844, "light"}, {390, 844, "dark"}}

// seen is what the browser tells of a page.
type seen struct {
	Scroll, Inner int
	Sections      map[string]string // their text
	Drawn         map[string]int    // boxes and charts that can be seen, per section
	Foreign       []string          // elements that no page has
	Empty         []string          // pictures of no size
	Stalls, Boxes int
	Outside       int // boxes that stick out of their lane
	Overlaps      []string
	Title         string
	Told          string // of the box that was pointed at
	watcher       *watcher
}

// A watcher hears what a browser tells.
type watcher struct {
	mu         sync.Mutex
	complaints []string // under mu
	requests   []string // under mu
}

const question = `(() => {
	const sections = {}, empty = [], overlaps = [];
	const drawn = {}, seen = (e) => { const r = e.getBoundingClientRect(); return r.width > 0 && r.height > 0; };
	for (const s of document.querySelectorAll('section')) {
		sections[s.id] = s.innerText;
		drawn[s.id] = [...s.querySelectorAll('.lane i, svg path')].filter(seen).length;
	}
	const foreign = [...document.querySelectorAll('img, iframe, object, script ~ script, [onerror], [src]')].map((e) => e.outerHTML.slice(0, 80));
	for (const f of document.querySelectorAll('figure, figure svg')) {
		const r = f.getBoundingClientRect();
		if (getComputedStyle(f).display !== 'none' && (r.width < 100 || r.height < 40)) empty.push(f.tagName);
	}
	let outside = 0, boxes = 0, stalls = 0;
	for (const b of document.querySelectorAll('.lane i')) {
		const r = b.getBoundingClientRect(), lane = b.parentElement.getBoundingClientRect();
		if (r.left < lane.left - 1 || r.right > lane.right + 1.5 || r.top < lane.top - 1) outside++;
		boxes++;
		if (b.classList.contains('stall')) stalls += Number(b.dataset.n || 1);
	}
	const groups = [...document.querySelectorAll('.axis')].map((a) => [...a.children]);
	for (const svg of document.querySelectorAll('svg')) groups.push([...svg.querySelectorAll('text')]);
	for (const group of groups) {
		const shown = group.filter((e) => e.getClientRects().length).map((e) => [e.textContent, e.getBoundingClientRect()]);
		for (let i = 0; i < shown.length; i++) for (let j = i + 1; j < shown.length; j++) {
			const [a, b] = [shown[i][1], shown[j][1]];
			if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3) overlaps.push(shown[i][0] + ' / ' + shown[j][0]);
		}
	}
	return {Scroll: document.documentElement.scrollWidth, Inner: window.innerWidth, Sections: sections, Drawn: drawn, Foreign: foreign, Empty: empty,
		Stalls: stalls, Boxes: boxes, Outside: outside, Overlaps: overlaps, Title: document.title};
})()`

// open looks at a file and leaves a picture of it where that is wanted.
func (l look) open(t *testing.T, ctx context.Context, path string) *seen {
	t.Helper()
	ctx, stop := chromedp.NewContext(ctx)
	defer stop()
	watch := &watcher{}
	if err := chromedp.Listen(ctx, watch.listen); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, watched, chromedp.EmulateViewport(l.width, l.height, l.device), l.scheme.prefer, chromedp.Navigate("file://"+path)); err != nil {
		t.Fatalf("open %s at %d wide: %v", path, l.width, err)
	}
	s, err := chromedp.Run(ctx, chromedp.Evaluate[seen](question))
	if err != nil {
		t.Fatalf("look at %s: %v", path, err)
	}
	s.Told = l.point(t, ctx)
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatalf("take a picture of %s: %v", path, err)
	}
	if folder := os.Getenv(shotsVariable); folder != "" {
		name := fmt.Sprintf("%s-%d-%v.png", strings.TrimSuffix(filepath.Base(path), ".html"), l.width, l.scheme)
		if err := os.WriteFile(filepath.Join(folder, name), picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.watcher = watch
	return &s
}

// device makes a narrow window that of a telephone.
func (l look) device(metrics *emulation.SetDeviceMetricsOverrideParams, touch *emulation.SetTouchEmulationEnabledParams) {
	if l.width < 500 {
		chromedp.EmulateMobile(metrics, touch)
		chromedp.EmulateTouch(metrics, touch)
		metrics.DeviceScaleFactor = 3
	}
}

// prefer makes the browser prefer a scheme of colours.
func (s scheme) prefer(ctx context.Context, target *chromedp.Target) (none chromedp.Void, err error) {
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: string(s)}}
	_, err = cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
	return none, err
}

// watched makes the browser tell what it asks for and what it complains of.
func watched(ctx context.Context, target *chromedp.Target) (none chromedp.Void, err error) {
	if _, err = cdp.Call(ctx, target, network.Enable, network.EnableParams{}); err != nil {
		return none, err
	}
	if _, err = cdp.Call(ctx, target, runtime.Enable, cdp.Empty{}); err != nil {
		return none, err
	}
	_, err = cdp.Call(ctx, target, log.Enable, cdp.Empty{})
	return none, err
}

// point taps or clicks the widest box and returns what the page says of it.
func (l look) point(t *testing.T, ctx context.Context) string {
	t.Helper()
	place, err := chromedp.Run(ctx, chromedp.Evaluate[[]float64](`(() => {
		const boxes = [...document.querySelectorAll('#plan .lane i')];
		boxes.sort((a, b) => b.getBoundingClientRect().width - a.getBoundingClientRect().width);
		boxes[0].scrollIntoView({block: 'center'});
		const r = boxes[0].getBoundingClientRect();
		return [r.left + r.width / 2, r.top + r.height / 2];
	})()`))
	if err != nil {
		t.Fatal(err)
	}
	press := chromedp.MouseClickXY(place[0], place[1])
	if l.width < 500 {
		press = chromedp.TapXY(place[0], place[1])
	}
	if err := chromedp.Do(ctx, press); err != nil {
		t.Fatal(err)
	}
	told, err := chromedp.Run(ctx, chromedp.Poll[string](`document.querySelector('#plan .tip.told')?.textContent`, chromedp.WithPollingTimeout(5*time.Second)))
	if err != nil {
		t.Errorf("the page says nothing of the box at %v: %v", place, err)
	}
	return told
}

func (s *watcher) listen(event any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		s.requests = append(s.requests, e.Request.URL)
	case *runtime.EventConsoleAPICalled:
		s.complaints = append(s.complaints, fmt.Sprintf("console.%s", e.Type))
	case *runtime.EventExceptionThrown:
		s.complaints = append(s.complaints, e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		s.complaints = append(s.complaints, e.Entry.Text)
	}
}

// check tells what is wrong with what was seen.
func (s *seen) check(t *testing.T, path string, stalls int, recorded bool) {
	t.Helper()
	s.watcher.mu.Lock()
	defer s.watcher.mu.Unlock()
	if s.Scroll > s.Inner {
		t.Errorf("the page is %d wide in a window of %d", s.Scroll, s.Inner)
	}
	for _, id := range []string{"timeline", "memory", "plan", "curve", "numbers"} {
		if len(s.Sections[id]) < 40 {
			t.Errorf("section %s says only %q", id, s.Sections[id])
		}
		if id != "numbers" && recorded && s.Drawn[id] == 0 {
			t.Errorf("section %s shows no picture", id)
		}
	}
	if len(s.Foreign) > 0 || s.Title == "owned" {
		t.Errorf("a name was not taken as text: %q, title %q", s.Foreign, s.Title)
	}
	if len(s.Empty) > 0 || s.Outside > 0 || len(s.Overlaps) > 0 || s.Boxes == 0 {
		t.Errorf("empty %v, %d of %d boxes outside, labels overlap: %q", s.Empty, s.Outside, s.Boxes, s.Overlaps)
	}
	if s.Stalls != stalls {
		t.Errorf("%d stalls are drawn, the timeline has %d", s.Stalls, stalls)
	}
	if len(s.watcher.complaints) > 0 {
		t.Errorf("the browser complains: %q", s.watcher.complaints)
	}
	if !strings.Contains(strings.ToLower(s.Told), "page") || !strings.Contains(s.Told, "B") {
		t.Errorf("of a page the page tells %q", s.Told)
	}
	for _, url := range s.watcher.requests {
		if url != "file://"+path && !strings.HasPrefix(url, "data:") {
			t.Errorf("the page asks for %s", url)
		}
	}
}

func TestThePageInABrowser(t *testing.T) {
	ctx := browser(t)
	folder := t.TempDir()
	for name, s := range subjects(t) {
		path := filepath.Join(folder, name+".html")
		written(t, path, s)
		stalls := s.laps(t).Stalls()
		for i, look := range looks {
			if name != "page" && i != 0 && i != 3 {
				continue // one page in all looks is enough, the others in light and wide and in dark and narrow
			}
			t.Run(fmt.Sprintf("%s at %d, %s", name, look.width, look.scheme), func(t *testing.T) {
				look.open(t, ctx, path).check(t, path, stalls, s.Manifest.Recorded)
			})
		}
	}
}
