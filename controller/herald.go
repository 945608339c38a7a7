package controller

// untold is how many events may wait for an observer before a session stops reading its worker's messages.
const untold = 64

// A herald hands the events of one session to an observer, in order, on a goroutine of its own. The session's goroutine owns it
// and passes events on between its other duties, so that it never waits for the observer while the session is open.
type herald struct {
	queue []Event
	out   chan Event
	done  chan struct{}
}

func newHerald(observer Observer) *herald {
	h := &herald{out: make(chan Event), done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for event := range h.out {
			observer.Observe(event)
		}
	}()
	return h
}

// tell queues an event.
func (h *herald) tell(event Event) { h.queue = append(h.queue, event) }

// full tells that the observer does not keep up.
func (h *herald) full() bool { return len(h.queue) >= untold }

// next is the event to pass on, and where to; the channel is nil where there is none.
func (h *herald) next() (chan<- Event, Event) {
	if len(h.queue) == 0 {
		return nil, nil
	}
	return h.out, h.queue[0]
}

// passed notes that the next event was passed on.
func (h *herald) passed() {
	h.queue[0] = nil
	h.queue = h.queue[1:]
}

// flush waits until all events were passed on.
func (h *herald) flush() {
	for len(h.queue) > 0 {
		h.out <- h.queue[0]
		h.passed()
	}
}

// close waits until all events were observed. Nothing may be told after it.
func (h *herald) close() {
	h.flush()
	close(h.out)
	<-h.done
}
