"""A model's way to a controller: the session with it, and when that is over the search for the next one at the same place.

A search runs on a thread of its own; forwards go on meanwhile. It opens a session, says in it what the controller before was
told, and waits for a plan. The session counts from the moment at which `renew` takes it up, between two forwards.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ControllerError, OptimemError
from . import forks, places
from .protocol import Hello, Manifest, Measured, Plan
from .session import Session

log = logging.getLogger("optimem")

_FIRST_S, _LONGEST_S = 0.1, 30.0  # until the first try, and between tries at most; a random half of it is left out


@dataclass(frozen=True)
class Introduction:
    """What a further session begins with: the model as registered, and once it was recorded its recording with the times."""

    registered: Manifest
    recorded: tuple[Manifest, Measured] | None

    @property
    def manifest(self) -> Manifest:
        """The manifest that the session's plan is made from."""
        return self.recorded[0] if self.recorded else self.registered


@dataclass(frozen=True)
class _Found:
    """A further session, and how it has begun."""

    session: Session
    manifest: Manifest
    plan: Plan


class Contact:
    """Thread-safe. `session` is the one that counts, which may be over."""

    def __init__(self, hello: Hello) -> None:
        """Open a session. Raises ControllerError."""
        self._hello = hello
        self._changing = threading.RLock()  # which finalizers and signal handlers may take too
        self._introduce: Callable[[], Introduction | None] = lambda: None
        self._found: _Found | None = None
        self._closing: queue.SimpleQueue[None] = queue.SimpleQueue()  # ends a search
        self._closed = self._searches = False
        self._tries = 0  # since a session has lasted
        self._next = 0.0  # when the next one is, on the monotonic clock
        self._failure = ""  # of the latest one
        self._place, channel = places.find()
        self._opened = time.monotonic()
        with self._changing:  # a session may be over before it has its place here
            self.session = Session.begin(channel, hello, after=self._after)
        forks.note(self)

    @property
    def standing(self) -> str:
        """How things stand, in words: "connected", or "lost: ..." with the reason and when the next try is."""
        session = self._latest()
        if not session.lost:
            return "connected"
        if not self._searches:
            return f"lost: {session.ending}"
        why = f"{session.ending}; {self._failure}" if self._failure else session.ending
        return f"lost: {why}; next try in {max(0.0, self._next - time.monotonic()):.1f} s"

    def keep(self, introduce: Callable[[], Introduction | None]) -> None:
        """Look for the next controller whenever a session is over from now on. `introduce` says what to tell it; None where
        nobody needs one any more. It is called on another thread."""
        self._introduce = introduce
        self._after()

    def renew(self, manifest: Manifest) -> Plan | None:
        """Let the session count that was found meanwhile. Return the plan that it has made from `manifest`; None where none
        was found. Must be called between forwards, and the plan be followed."""
        if self._found is None:
            return None
        with self._changing:
            found = self._found
            if found is None or found.session.lost:
                return None
            if found.manifest is not manifest:  # another one came into force before the session before was over
                self._found = None
                found.session.close("the model was recorded anew")
                self._after()
                return None
            self.session, self._found = found.session, None
        log.info("optimem: a controller is there again; session %s has begun", found.session.id)
        return found.session.new_plan() or found.plan

    def close(self, reason: str) -> None:
        """Say bye and look for nobody any more. Idempotent."""
        with self._changing:
            self._closed = True
            found, self._found = self._found, None
        self._closing.put(None)
        for session in (self.session, found.session if found else None):
            if session is not None:
                session.close(reason)

    def leave_to_parent(self) -> None:
        """Look for nobody in a forked child."""
        self._changing = threading.RLock()
        self._closed, self._searches = True, False

    def _latest(self) -> Session:
        found = self._found
        return found.session if found else self.session

    def _after(self) -> None:
        """Look for the next controller if the latest session is over and nobody wanted that."""
        with self._changing:
            session = self._latest()
            if self._closed or self._searches or not session.lost or session.wanted:
                return
            self.session, self._found = session, None
            self._searches, self._failure = True, ""
            if time.monotonic() - self._opened >= _LONGEST_S:
                self._tries = 0
            self._plan_next_try()
        threading.Thread(target=self._search, name="optimem-search", daemon=True).start()

    def _plan_next_try(self) -> None:
        pause = min(_LONGEST_S, _FIRST_S * 2 ** min(self._tries, 30))
        self._tries += 1
        self._next = time.monotonic() + pause * random.uniform(0.5, 1)  # noqa: S311 - so that workers do not come all at once

    def _search(self) -> None:
        """Try until a session is found, and no more once the contact is closed or nobody needs it."""
        while not self._is_closed_before_next() and (introduction := self._introduce()) is not None:
            if self._try(introduction):
                return
        self._searches = False

    def _is_closed_before_next(self) -> bool:
        try:
            self._closing.get(timeout=max(0.0, self._next - time.monotonic()))
        except queue.Empty:
            return False
        return True

    def _try(self, introduction: Introduction) -> bool:
        """Try once. Return True where a session was found."""
        try:
            found = self._begin(introduction)
        except OptimemError as error:
            self._failure = str(error)
            self._plan_next_try()
            return False
        with self._changing:
            if not self._closed and not found.session.lost:
                self._found, self._searches, self._opened = found, False, time.monotonic()
                return True
        found.session.close("nobody needs it any more")
        self._failure = found.session.ending
        self._plan_next_try()
        return False

    def _begin(self, introduction: Introduction) -> _Found:
        """Open a session and go on to its plan. Raises ControllerError, or BadInput for what no plan can be made from."""
        session = Session.begin(self._place.dial(), self._hello_of(introduction), after=self._after)
        try:
            plan = session.ask_for_plan(introduction.registered)
            if plan is not None and introduction.recorded is not None:
                plan = session.ask_for_plan(*introduction.recorded)
            if plan is None:
                raise ControllerError(f"the next controller has sent no plan: {session.ending or 'not in time'}")
        except BaseException:
            session.close("it has sent no plan")
            raise
        return _Found(session, introduction.manifest, plan)

    def _hello_of(self, introduction: Introduction) -> Hello:
        """Return the hello with the bytes that the model may take, which do not include those that it holds already."""
        if introduction.recorded is None:
            return self._hello
        free = introduction.recorded[1].free_bytes
        return dataclasses.replace(self._hello, device=dataclasses.replace(self._hello.device, free_bytes=free))
