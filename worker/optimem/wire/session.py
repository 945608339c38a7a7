"""The worker's side of one conversation: hello to bye.

Two threads own the socket, one for each direction; a forward never waits for either. What the controller sends lies ready in
memory until a hook picks it up. When the controller is gone the session is `lost`, and everything that was agreed stays in
force.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable

from ..errors import BadInput, ControllerError
from . import channel as wire
from . import private
from .protocol import (
    Bye,
    Failure,
    Hello,
    Manifest,
    Measured,
    Message,
    Outcome,
    Plan,
    ProtocolError,
    Report,
    Shrink,
    Stop,
    Welcome,
)

log = logging.getLogger("optimem")

_HANDSHAKE_S = 10.0
_PLANNING_S = 60.0
_UNSENT = 1024  # reports that may wait for a slow controller before the newest are dropped


def _note_stop(reason: str) -> None:
    log.info("optimem: the controller ended the session (%s); the last plan stays in force", reason)


# What else happens when the controller says stop. A worker that runs for a controller puts its own here.
on_stop: Callable[[str], None] = _note_stop


class Session:
    """An open conversation. Thread-safe."""

    def __init__(self, channel: wire.Channel, welcome: Welcome) -> None:
        self.id = welcome.session
        self.measure = frozenset(welcome.measure)  # what the controller wants to know beside the recording
        self._channel = channel
        self._news = threading.Condition()
        self._plan: Plan | None = None
        self._measured = 0  # messages of that kind so far
        self._asked = 0  # of them when a plan was asked for: an older plan may be of another recording
        self._failure: Failure | None = None
        self._give_back = 0
        self._lost = False
        self._closing = False  # we said bye: the end of the connection is no news
        self._unsent: queue.Queue[Message | None] = queue.Queue(_UNSENT)
        self._threads = [
            threading.Thread(target=self._receive, name="optimem-receive", daemon=True),
            threading.Thread(target=self._send, name="optimem-send", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, hello: Hello) -> Session:
        """Find or start a controller and open a session with it. Raises ControllerError."""
        channel = connect()
        try:
            channel.send(hello)
            answer = channel.receive(_HANDSHAKE_S)
        except (wire.ChannelClosed, ProtocolError, TimeoutError) as error:
            channel.close()
            raise ControllerError(f"the controller did not answer hello: {error}") from error
        if isinstance(answer, Welcome):
            return cls(channel, answer)
        channel.close()
        raise _refusal(answer)

    @property
    def lost(self) -> bool:
        """True once the controller is gone."""
        return self._lost

    def ask_for_plan(self, *messages: Manifest | Measured) -> Plan | None:
        """Send `messages` and wait for the plan that answers them; None if the controller is gone.

        Raises BadInput with the controller's words where it refuses. The only call that waits, for the moments at which
        nothing can go on without a plan: attaching, and the end of the recorded forward.
        """
        with self._news:
            self._plan = None
            for message in messages:
                self._post(message)
            self._asked = self._measured
            answered = self._news.wait_for(lambda: self._plan or self._failure or self._lost, _PLANNING_S)
            plan, self._plan = self._plan, None
            failure, self._failure = self._failure, None
            if failure:
                raise _refusal(failure)
        if not answered:
            log.warning("optimem: no plan came within %.0f s; going on without", _PLANNING_S)
        return plan

    def new_plan(self) -> Plan | None:
        """Return a plan that came unasked since the last call."""
        if self._plan is None:
            return None
        with self._news:
            plan, self._plan = self._plan, None
        return plan

    def bytes_to_give_back(self) -> int:
        """Return the device bytes that the controller wants back since the last call."""
        if not self._give_back:
            return 0
        with self._news:
            nbytes, self._give_back = self._give_back, 0
        return nbytes

    def tell(self, message: Measured | Report | Outcome | Failure) -> None:
        """Send `message` when the socket has time for it."""
        self._post(message)

    def close(self, reason: str) -> None:
        """Say bye and end. Idempotent."""
        self._closing = True
        self._post(Bye(reason))
        self._post(None)
        if threading.current_thread() not in self._threads:
            self._threads[1].join(timeout=2.0)
        self._lost = True
        self._channel.close()

    def _post(self, message: Message | None) -> None:
        try:
            self._unsent.put_nowait(message)
            self._measured += isinstance(message, Measured)
        except queue.Full:
            log.debug("optimem: the controller does not read; %s dropped", type(message).__name__)

    def _send(self) -> None:
        while (message := self._unsent.get()) is not None:
            try:
                self._channel.send(message)
            except ProtocolError as error:  # this one may not travel, the next one may
                log.warning("optimem: a message was not sent: %s", error)
            except wire.ChannelClosed:
                self._lose("it closed the connection")
                return

    def _receive(self) -> None:
        try:
            while not self._lost:
                message = self._channel.receive(None)
                if message is not None:
                    self._take(message)
        except (wire.ChannelClosed, ProtocolError) as error:
            self._lose(str(error))

    def _take(self, message: Message) -> None:
        with self._news:
            if isinstance(message, Plan):
                if message.answers >= self._asked:
                    self._plan = message
            elif isinstance(message, Shrink):
                self._give_back += message.bytes
            elif isinstance(message, Failure):
                self._failure = message
            elif isinstance(message, (Bye, Stop)):
                self._lost = True
            self._news.notify_all()
        if isinstance(message, Stop):
            self._post(Bye("stopped"))
            on_stop(message.reason)

    def _lose(self, why: str) -> None:
        with self._news:
            said, self._lost = self._lost, True
            self._news.notify_all()
        if not said and not self._closing:
            silence_if_spawned()
            log.warning("optimem: the controller is gone (%s); the last plan stays in force", why)


def connect() -> wire.Channel:
    """Connect to the controller named by OPTIMEM_SOCKET, else to the user's, else to a private one started for us."""
    named = os.environ.get("OPTIMEM_SOCKET")
    if named:
        return _dial(named)
    try:
        return wire.connect(wire.default_socket(), _HANDSHAKE_S)
    except (OSError, wire.ChannelClosed):
        return _dial(private.socket())


def announce_failure(code: str, text: str) -> None:
    """Tell the controller that spawned us why we end, where no session of ours could. Never raises."""
    if os.environ.get("OPTIMEM_SPAWNED") != "1":
        return
    with contextlib.suppress(OSError, wire.ChannelClosed, ProtocolError, ControllerError):
        channel = connect()
        channel.send(Failure(code, text.encode(errors="replace").decode()))  # names of files may be no text
        channel.close()


def silence_if_spawned() -> None:
    """Without the controller that spawned us nobody reads our stderr: keep writes to it from ending the process."""
    if os.environ.get("OPTIMEM_SPAWNED") == "1":
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _dial(path: str) -> wire.Channel:
    try:
        return wire.connect(path, _HANDSHAKE_S)
    except (OSError, wire.ChannelClosed) as error:
        raise ControllerError(
            f"no controller answers at {path} ({error}); start one with 'optimemctl serve' or unset OPTIMEM_SOCKET"
        ) from error


def _refusal(answer: Message | None) -> Exception:
    if isinstance(answer, Failure):
        return BadInput(answer.text) if answer.code == "bad_input" else ControllerError(f"{answer.code}: {answer.text}")
    return ControllerError(f"the controller answered {type(answer).__name__} where it should have said welcome")
