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

from ..errors import BadInput, ControllerError, OptimemError
from . import channel as wire
from . import forks, places
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

_TEXT = 16_000  # characters of a failure before the welcome, of up to four bytes each
_UNSENT = 1024  # messages that may wait for a slow controller before the newest are dropped


def _note_stop(reason: str) -> None:
    log.info("optimem: the controller stopped the session (%s); the last plan stays in force", reason)


# Called when the controller says stop. A worker that runs for a controller puts its own function here.
on_stop: Callable[[str], None] = _note_stop


class Session:
    """An open conversation. Thread-safe.

    An exception may come at any line of the caller's thread, from a signal's handler, and leaves no lock locked: locks are
    those of the interpreter, taken by `with` alone, and whoever waits does so at a SimpleQueue.
    """

    def __init__(self, channel: wire.Channel, welcome: Welcome, after: Callable[[], None]) -> None:
        """`after` is called on a thread of the session's own once it is over."""
        channel.agree(welcome.terms)
        self.id = welcome.session
        self.terms = welcome.terms
        self.wanted = False  # that the session is over: this side closed it, or was asked to stop
        self._channel = channel
        self._after = after
        self._changing = threading.RLock()  # which finalizers and signal handlers may take too
        self._bell: queue.SimpleQueue[None] | None = None  # rung for whoever waits for a plan
        self._answers = _Answers()
        self._debt = _Debt()
        self._measured = 0  # messages of that kind so far
        self._ending = ""
        self._unsent: queue.SimpleQueue[Message | None] = queue.SimpleQueue()  # which finalizers may put to
        self._threads = [
            threading.Thread(target=self._receive, name=f"optimem-receive-{self.id}", daemon=True),
            threading.Thread(target=self._send, name=f"optimem-send-{self.id}", daemon=True),
        ]
        forks.note(self)
        try:
            for thread in reversed(self._threads):  # the one that receives waits for the other's end
                thread.start()
        except BaseException:
            self._end("it was cut short", wanted=True)
            raise

    @classmethod
    def open(cls, hello: Hello) -> Session:
        """Find or start a controller and open a session with it. Raises ControllerError."""
        _, channel = places.find()
        return cls.begin(channel, hello)

    @classmethod
    def begin(cls, channel: wire.Channel, hello: Hello, after: Callable[[], None] = lambda: None) -> Session:
        """Open a session over `channel`. Raises ControllerError."""
        try:
            return cls(channel, _greet(channel, hello), after)
        except BaseException:
            channel.close()
            raise

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
        try:
            if self._ask(*messages) and self._wait(_seconds(self.terms.planning_ns)):
                return self._pick_up()
        except OptimemError:  # a refusal, after which plans that come for the recording before count again
            raise
        except BaseException:
            self._give_up()
            raise
        self._give_up()
        log.warning("optimem: the controller sent no plan in time; going on without a new one")
        return None

    def new_plan(self) -> Plan | None:
        """Return a plan that came unasked since the last call."""
        return None if self._answers.plan is None else self._pick_up()

    @property
    def debt(self) -> int:
        """The device bytes that the controller has asked back and that are not settled. A plan that came after the request
        and was returned by `new_plan` or `ask_for_plan` has settled it."""
        return self._debt.nbytes

    def settle(self, nbytes: int) -> None:
        """Note that `nbytes` of the debt were answered: given back as far as that was possible."""
        with self._changing:
            self._debt.pay(nbytes)

    def tell(self, message: Measured | Report | Short | Outcome) -> None:
        """Send `message` when the socket has time for it. Does nothing once the session is over."""
        self._post(message)

    def close(self, reason: str) -> None:
        """Say bye and end. Idempotent."""
        self._end(f"this side closed it ({reason})", Bye(reason), wanted=True)
        self._hang_up()

    def leave_to_parent(self) -> None:
        """In a forked child: be over. The parent's conversation goes on, and the controller notices nothing."""
        self._changing = threading.RLock()
        self._unsent = queue.SimpleQueue()
        self._ending, self.wanted = "it belongs to the process that this one was forked from", True
        self._channel.leave_to_parent()

    def _hang_up(self) -> None:
        """Close the connection once all was sent, or two seconds have passed."""
        if threading.current_thread() is not self._threads[1]:
            self._threads[1].join(timeout=2.0)
        self._channel.close()

    def _ask(self, *messages: Message) -> bool:
        with self._changing:
            self._answers.expect(self._measured + sum(isinstance(message, Measured) for message in messages))
            self._bell = queue.SimpleQueue()
            return self._post(*messages)

    def _wait(self, seconds: float) -> bool:
        """Wait until an answer has come or the session is over. Return False where neither was so within `seconds`."""
        bell, deadline = self._bell, time.monotonic() + seconds
        while bell is not None and not (self._answers.settled() or self._ending):
            try:
                bell.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return False
        return True

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.put(None)

    def _pick_up(self) -> Plan | None:
        with self._changing:
            self._bell = None
            plan = self._answers.pick_up()
            self._debt.settle_with(plan)
        return plan

    def _give_up(self) -> None:
        with self._changing:
            self._bell = None
            self._answers.give_up()

    def _post(self, *messages: Message) -> bool:
        """Queue all `messages`, or none where the controller does not keep up. Return False for none; True where the session
        is over, which the caller sees by itself."""
        with self._changing:
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
                self._channel.close()
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
        self._hang_up()
        self._after()

    def _take(self, message: Message) -> None:
        with self._changing:
            if isinstance(message, Plan | Refused):
                self._answers.take(message)
                self._debt.note(message)
                self._ring()
            elif isinstance(message, Shrink):
                self._debt.add(message)
        if isinstance(message, Failure):
            self._lose(f"the controller ended the session ({message.code}: {message.text})")
        elif isinstance(message, Bye) and self._end(f"the controller said bye ({message.reason})"):
            log.info("optimem: %s; the last plan stays in force", self._ending)
        elif isinstance(message, Stop) and self._end(
            f"the controller stopped it ({message.reason})", Bye("stopped"), wanted=True
        ):
            on_stop(message.reason)

    def _lose(self, why: str) -> None:
        if self._end(why):
            log.warning("optimem: %s; the last plan stays in force", why)

    def _end(self, how: str, last: Message | None = None, *, wanted: bool = False) -> bool:
        """End the session after a `last` message. Return False where it is over already."""
        with self._changing:
            if self._ending:
                return False
            if last is not None:
                self._unsent.put(last)
            self._unsent.put(None)  # first, so that what is cut short here can be done again
            self._ending, self.wanted = how, wanted
            self._ring()
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


def announce_failure(code: str, text: str) -> None:
    """Tell the controller that spawned us why we end, where no session of ours could. Never raises."""
    if os.environ.get("OPTIMEM_SPAWNED") != "1":
        return
    with contextlib.suppress(OSError, wire.ChannelClosed, ProtocolError, ControllerError):
        _, channel = places.find()
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


def _greet(channel: wire.Channel, hello: Hello) -> Welcome:
    """Say hello and return the welcome. Raises ControllerError."""
    try:
        channel.send(hello)
        answer = channel.receive(wire.HELLO_S)
    except (wire.ChannelClosed, ProtocolError, TimeoutError) as error:
        raise ControllerError(f"the controller did not answer hello: {error}") from error
    if isinstance(answer, Welcome):
        return answer
    if isinstance(answer, Failure):
        raise ControllerError(f"{answer.code}: {answer.text}")
    raise ControllerError(f"the controller answered {type(answer).__name__} where it should have said welcome")


def _error(refusal: Refused) -> Exception:
    return BadInput(refusal.text) if refusal.code == "bad_input" else ControllerError(f"{refusal.code}: {refusal.text}")


def _seconds(ns: int) -> float:
    """Return `ns` in seconds, at most what a lock can wait for."""
    return min(ns / 1e9, threading.TIMEOUT_MAX)
