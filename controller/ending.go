package controller

import (
	"errors"
	"fmt"
	"time"
)

// exitGrace is from a lost connection to the end of a spawned worker's process.
const exitGrace = 3 * time.Second

// conclude tells how the session ended. A lost session of a spawned worker takes its cause from the end of the process.
func (s *Session) conclude() {
	s.planning.config.Broker.Release(s)
	s.herald.flush()
	ended := Ended{Of: Of(s.id), State: s.state}
	if s.state == Lost {
		ended.Err = s.whyLost()
	}
	s.log.Info("session ended", "state", s.state.String(), "forwards", s.planning.report.Forwards, "error", ended.Err)
	s.tell(ended)
}

func (s *Session) whyLost() error {
	if s.worker == nil || !s.worker.ended(exitGrace) {
		return fmt.Errorf("the connection to the worker (pid %d) ended without bye: %w", s.pid, s.cause)
	}
	var exit *ExitError
	if !errors.As(s.worker.Err(), &exit) {
		return fmt.Errorf("worker (pid %d) ended without bye", s.pid)
	}
	told := *exit
	told.Opened, told.Forwards = s.opened, s.planning.report.Forwards
	return &told
}
