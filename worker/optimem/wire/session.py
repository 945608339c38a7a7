"""The worker's side of one conversation: hello to bye.

Two threads own the socket, one for each direction; a forward waits for neither. Messages of the controller lie ready in
memory until a hook picks them up. When the session is over, everything that was agreed stays in force, and `ending` says how
it ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
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
    Refused,
    Report,
    Short,
    Shrink,
    Stop,
    Welcome,
)

log = logging.getLogger("optimem")

_HELLO_S = 10.0  # for connecting, and from hello to its answer
_TEXT = 16_000  # characters of a failure before the welcome, of up to four bytes each
_UNSENT = 1024  # messages that may wait for a slow controller before the newest are dropped


def _note_stop(reason: str) -> None:
    log.info("optimem: the controller stopped the session (%s); the last plan stays in force", reason)


# Called when the controller says stop. A worker that runs for a controller puts its own function here.
on_stop: Callable[[str], None] = _note_stop


class Session:
    """An open conversation. Thread-safe."""

    def __init__(self, channel: wire.Channel, welcome: Welcome) -> None:
        channel.agree(welcome.terms)
        self.id = welcome.session
        self.terms = welcome.terms
        self._channel = channel
        self._news = threading.Condition()
        self._answers = _Answers()
        self._debt = _Debt()
        self._measured = 0  # messages of that kind so far
        self._ending = ""
        self._unsent: queue.SimpleQueue[Message | None] = queue.SimpleQueue()  # which finalizers may put to
        self._threads = [
            threading.Thread(target=self._receive, name=f"optimem-receive-{self.id}", daemon=True),
            threading.Thread(target=self._send, name=f"optimem-send-{self.id}", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, hello: Hello) -> Session:
        """Find or start a controller and open a session with it. Raises ControllerError."""
        channel = connect()
        try:
            channel.send(hello)
            answer = channel.receive(_HELLO_S)
        except (wire.ChannelClosed, ProtocolError, TimeoutError) as error:
            channel.close()
            raise ControllerError(f"the controller did not answer hello: {error}") from error
        if isinstance(answer, Welcome):
            return cls(channel, answer)
        channel.close()
        if isinstance(answer, Failure):
            raise ControllerError(f"{answer.code}: {answer.text}")
        raise ControllerError(f"the controller answered {type(answer).__name__} where it should have said welcome")

    @property
    def lost(self) -> bool:
        """True once the session is over, however it ended."""
        return bool(self._ending)

    @property
    def ending(self) -> str:
        """How the session ended, in words; empty while it is open."""
        return self._ending

    def ask_for_plan(self, *messages: Manifest | Measured) -> Plan | None:
        """Send `messages` and wait for the plan that answers them. Return None where the session is over, and where no plan
        comes within the time of the terms.

        Raises BadInput with the controller's words where it refuses: the session goes on, and so does the plan before.

        This is the only call that waits, for the moments at which nothing can go on without a plan: attaching, and the end
        of the recorded forward. It may be interrupted. An answer that comes later is dropped, and so is every plan until the
        next question: the controller plans for the messages of the question that was given up.
        """
        with self._news:
            self._answers.expect(self._measured + sum(isinstance(message, Measured) for message in messages))
            settled = False
            try:
                settled = self._post(*messages) and self._news.wait_for(self._settled, _seconds(self.terms.planning_ns))
            finally:
                if not settled:
                    self._answers.give_up()
            if not settled:
                log.warning("optimem: the controller sent no plan in time; going on without a new one")
            plan = self._answers.pick_up()
            self._debt.settle_with(plan)
            return plan

    def new_plan(self) -> Plan | None:
        """Return a plan that came unasked since the last call."""
        if self._answers.plan is None:
            return None
        with self._news:
            plan = self._answers.pick_up()
            self._debt.settle_with(plan)
        return plan

    @property
    def debt(self) -> int:
        """The device bytes that the controller has asked back and that are not settled. A plan that came after the request
        and was returned by `new_plan` or `ask_for_plan` has settled it."""
        return self._debt.nbytes

    def settle(self, nbytes: int) -> None:
        """Note that `nbytes` of the debt were answered: given back as far as that was possible."""
        with self._news:
            self._debt.pay(nbytes)

    def tell(self, message: Measured | Report | Short | Outcome) -> None:
        """Send `message` when the socket has time for it. Does nothing once the session is over."""
        self._post(message)

    def close(self, reason: str) -> None:
        """Say bye and end. Idempotent."""
        self._end(f"this side closed it ({reason})", Bye(reason))
        if threading.current_thread() not in self._threads:
            self._threads[1].join(timeout=2.0)
        self._channel.close()

    def _settled(self) -> bool:
        return self._answers.settled() or bool(self._ending)

    def _post(self, *messages: Message) -> bool:
        """Queue all `messages`, or none where the controller does not keep up. Return False for none; True where the session
        is over, which the caller sees by itself."""
        with self._news:
            if self._ending:
                return True
            if self._unsent.qsize() + len(messages) > _UNSENT:
                log.debug("optimem: the controller does not read; %s dropped", type(messages[0]).__name__)
                return False
            for message in messages:
                self._unsent.put(message)
                self._measured += isinstance(message, Measured)
            return True

    def _send(self) -> None:
        while (message := self._unsent.get()) is not None:
            try:
                self._channel.send(message)
            except ProtocolError as error:  # the next message may travel
                log.warning("optimem: a message was not sent: %s", error)
            except wire.NotRead as error:
                self._lose(f"the controller is stuck ({error})")
                return
            except wire.ChannelClosed:  # the reader ends the session: the controller may have said why
                return

    def _receive(self) -> None:
        try:
            while not self._ending:
                message = self._channel.receive(None)
                self._take(message)
        except ProtocolError as error:
            self._lose(f"the controller broke the protocol ({error})")
        except wire.ChannelClosed as error:
            if not self._ending:
                silence_if_spawned()
            self._lose(f"the controller is gone ({error})")

    def _take(self, message: Message) -> None:
        with self._news:
            if isinstance(message, Plan | Refused):
                self._answers.take(message)
                self._debt.note(message)
            elif isinstance(message, Shrink):
                self._debt.add(message)
            self._news.notify_all()
        if isinstance(message, Failure):
            self._lose(f"the controller ended the session ({message.code}: {message.text})")
        elif isinstance(message, Bye) and self._end(f"the controller said bye ({message.reason})"):
            log.info("optimem: %s; the last plan stays in force", self._ending)
        elif isinstance(message, Stop) and self._end(f"the controller stopped it ({message.reason})", Bye("stopped")):
            on_stop(message.reason)

    def _lose(self, why: str) -> None:
        if self._end(why):
            log.warning("optimem: %s; the last plan stays in force", why)

    def _end(self, how: str, last: Message | None = None) -> bool:
        """End the session after a `last` message. Return False where it is over already."""
        with self._news:
            if self._ending:
                return False
            self._ending = how
            if last is not None:
                self._unsent.put(last)
            self._unsent.put(None)
            self._news.notify_all()
        return True


class _Answers:
    """The plans and refusals of a controller, sorted by the latest question. Callers hold the session's lock."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self._refusal: Refused | None = None
        self._earlier: Plan | None = None  # of the recording before the question
        self._asked: int | None = 0  # times that an answer must have seen; None once the question was given up

    def expect(self, asked: int) -> None:
        """Wait for an answer that has seen as many messages with times as were `asked` about."""
        self._earlier = self.plan
        self.plan = self._refusal = None
        self._asked = asked

    def give_up(self) -> None:
        """Drop whatever comes until the next question."""
        self.plan = self._refusal = self._earlier = None
        self._asked = None

    def take(self, message: Plan | Refused) -> None:
        if self._asked is None:
            return
        if isinstance(message, Plan):
            if message.answers >= self._asked:
                self.plan = message
            else:
                self._earlier = message
        elif message.answers >= self._asked:
            self._refusal = message

    def settled(self) -> bool:
        return self.plan is not None or self._refusal is not None

    def pick_up(self) -> Plan | None:
        """Return the plan, once. Raises BadInput or ControllerError for a refusal; plans that came in the meantime for the
        recording before count again then."""
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            self.plan = self._earlier
            raise _error(refusal)
        plan, self.plan = self.plan, None
        return plan


class _Debt:
    """Device bytes that the controller has asked back. Callers hold the session's lock."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._due: float | None = None  # when they are to be free, on the monotonic clock
        self._planned = False  # a plan has come since that takes the request into account

    def add(self, shrink: Shrink) -> None:
        self.nbytes += shrink.bytes
        self._planned = False
        if shrink.within_ns:
            due = time.monotonic() + _seconds(shrink.within_ns)
            self._due = due if self._due is None else min(self._due, due)

    def note(self, message: Plan | Refused) -> None:
        self._planned = self._planned or isinstance(message, Plan)

    def settle_with(self, plan: Plan | None) -> None:
        """Note that `plan` is followed from now on."""
        if plan is not None and self._planned:
            self.pay(self.nbytes)

    def pay(self, nbytes: int) -> None:
        """Take `nbytes` off. Say so where they are late."""
        late = 0.0 if self._due is None else time.monotonic() - self._due
        self.nbytes = max(0, self.nbytes - nbytes)
        if not self.nbytes:
            self._due, self._planned = None, False
        if late > 0:
            log.warning("optimem: %d device bytes are given back %.3f s later than the controller asked", nbytes, late)


def connect() -> wire.Channel:
    """Connect to the controller named by OPTIMEM_SOCKET, else to the user's, else to a private one started for us."""
    named = os.environ.get("OPTIMEM_SOCKET")
    if named:
        return _dial(named)
    try:
        return wire.connect(wire.default_socket(), _HELLO_S)
    except (OSError, wire.ChannelClosed):
        return _dial(private.socket())


def announce_failure(code: str, text: str) -> None:
    """Tell the controller that spawned us why we end, where no session of ours could. Never raises."""
    if os.environ.get("OPTIMEM_SPAWNED") != "1":
        return
    with contextlib.suppress(OSError, wire.ChannelClosed, ProtocolError, ControllerError):
        channel = connect()
        text = text.encode(errors="replace").decode()  # names of files may be no text
        channel.send(Failure(code, text[:_TEXT]))
        channel.close()


def silence_if_spawned() -> None:
    """Send stderr to nowhere in a worker that a controller has spawned. With the controller gone nobody reads stderr, and a
    write to it would end the process."""
    if os.environ.get("OPTIMEM_SPAWNED") == "1":
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _dial(path: str) -> wire.Channel:
    try:
        return wire.connect(path, _HELLO_S)
    except (OSError, wire.ChannelClosed) as error:
        raise ControllerError(
            f"no controller answers at {path} ({error}); start one with 'optimemctl serve' or unset OPTIMEM_SOCKET"
        ) from error


def _error(refusal: Refused) -> Exception:
    return BadInput(refusal.text) if refusal.code == "bad_input" else ControllerError(f"{refusal.code}: {refusal.text}")


def _seconds(ns: int) -> float:
    """Return `ns` in seconds, at most what a lock can wait for."""
    return min(ns / 1e9, threading.TIMEOUT_MAX)
