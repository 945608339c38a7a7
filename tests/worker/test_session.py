"""One conversation from the worker's side: answers to questions, and what each ending is called."""

from __future__ import annotations

import dataclasses
import linecache
import logging
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from optimem.errors import BadInput, ControllerError
from optimem.wire import channel, session
from optimem.wire.protocol import (
    MAX_FRAME,
    MAX_VALUES,
    Bye,
    Device,
    Failure,
    Hello,
    Measured,
    Plan,
    Refused,
    Report,
    Shrink,
    Stop,
    Terms,
    Welcome,
)

TERMS = Terms(60 * 10**9, 10**10, MAX_FRAME, MAX_VALUES, timed_forwards=3)
HELLO = Hello(4, "3.12", "2.9", Device("simgpu", 0, "", "", 0, 0, simulated=True))
TIMES = Measured([1], [], [], [], 0, 0, 0, 0, 0, [])
REPORT = Report(0, 1, 0, [], 0, 0, 0, 0, 0, 0)
PATIENCE = 60.0  # seconds until a test has gone wrong


def plan(version: int, answers: int) -> Plan:
    return Plan(version, answers, [], [], 1, [], 0, 0, 0, 0, 0, 0)


class Controller:
    """The other end of a session."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.terms = TERMS
        self.heard = 0  # messages with times

    def welcome(self) -> session.Session:
        """Open a session."""
        opened: queue.Queue[Any] = queue.Queue()
        thread = threading.Thread(target=lambda: opened.put(session.Session.open(HELLO)))
        thread.start()
        self.accept()
        self.say(Welcome("s7", self.terms))
        return opened.get(timeout=PATIENCE)  # type: ignore[no-any-return]

    def accept(self) -> None:
        """Take a connection and its hello."""
        self._socket, _ = self._listener.accept()
        self._channel = channel.Channel(self._socket)
        assert self.hear() == HELLO

    def say(self, *messages: Any) -> None:
        for message in messages:
            self._channel.send(message)

    def hear(self) -> Any:
        message = self._channel.receive(PATIENCE)
        self.heard += isinstance(message, Measured)
        return message

    def garble(self) -> None:
        """Send a frame that is none."""
        self._socket.sendall(b"\0\0\0\1\xc1")

    def hang_up(self) -> None:
        self._channel.close()


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    tmp_path.chmod(0o700)
    path = str(tmp_path / "s")
    monkeypatch.setenv("OPTIMEM_SOCKET", path)
    monkeypatch.delenv("OPTIMEM_SPAWNED", raising=False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield Controller(listener)


def until_over(talk: session.Session) -> None:
    """Wait until the session is over."""
    talk._threads[1].join(PATIENCE)  # its end is the last word
    assert talk.lost


def until_taken(talk: session.Session, controller: Controller) -> None:
    """Wait until the session has taken everything that was said before: messages are taken in order."""
    taken, take = threading.Event(), talk._take

    def watched(message: Any) -> None:
        take(message)
        if isinstance(message, Welcome):  # which says nothing to an open session
            taken.set()

    talk._take = watched  # type: ignore[method-assign]
    controller.say(Welcome("s7", TERMS))
    assert taken.wait(PATIENCE)


def ask(talk: session.Session, controller: Controller, *answers: Any) -> Plan | None:
    """Ask for a plan; the controller says `answers` once it has heard the question."""
    asked = talk._measured + 1

    def answer() -> None:
        while controller.heard < asked:
            controller.hear()
        controller.say(*answers)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        return talk.ask_for_plan(TIMES)
    finally:
        thread.join(PATIENCE)


# Questions and answers.


def test_the_plan_that_answers_is_returned(controller: Controller) -> None:
    talk = controller.welcome()
    assert ask(talk, controller, plan(1, answers=1)) == plan(1, answers=1)
    assert talk.new_plan() is None
    talk.close("done")


def test_a_refusal_is_raised_and_the_session_goes_on(controller: Controller) -> None:
    talk = controller.welcome()
    with pytest.raises(BadInput, match="too small by 3 MiB"):
        ask(talk, controller, Refused(1, "bad_input", "too small by 3 MiB"))
    assert not talk.lost
    assert ask(talk, controller, plan(1, answers=2)) == plan(1, answers=2)
    with pytest.raises(ControllerError, match="internal: the planner is at fault"):
        ask(talk, controller, Refused(3, "internal", "the planner is at fault"))
    assert not talk.lost
    talk.close("done")


def test_a_refusal_of_an_earlier_question_is_no_answer(controller: Controller) -> None:
    talk = controller.welcome()
    talk.tell(TIMES)
    assert ask(talk, controller, Refused(1, "bad_input", "too small"), plan(1, answers=2)) == plan(1, answers=2)
    talk.close("done")


def test_after_a_refusal_a_plan_for_the_recording_before_counts(controller: Controller) -> None:
    """It had been sent before the question came, and the controller takes it to be in force."""
    talk = controller.welcome()
    talk.tell(TIMES)
    with pytest.raises(BadInput):
        ask(talk, controller, plan(5, answers=1), Refused(2, "bad_input", "too small"))
    assert talk.new_plan() == plan(5, answers=1)
    talk.close("done")


def test_a_plan_that_was_not_picked_up_survives_a_refusal(controller: Controller) -> None:
    talk = controller.welcome()
    controller.say(plan(5, answers=0))
    until_taken(talk, controller)
    with pytest.raises(BadInput):
        ask(talk, controller, Refused(1, "bad_input", "too small"))
    assert talk.new_plan() == plan(5, answers=0)
    talk.close("done")


def test_an_answer_after_the_time_of_the_terms_is_dropped(controller: Controller) -> None:
    """It is of a recording that the worker does not follow, and so is every plan until the next question."""
    controller.terms = dataclasses.replace(TERMS, planning_ns=1)
    talk = controller.welcome()
    assert talk.ask_for_plan(TIMES) is None
    talk.tell(TIMES)
    controller.say(plan(1, answers=1), plan(2, answers=2))
    until_taken(talk, controller)
    assert talk.new_plan() is None
    assert not talk.lost
    talk.close("done")


def test_an_interrupted_question_is_given_up(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = controller.welcome()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(talk, "_wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            talk.ask_for_plan(TIMES)
    controller.say(plan(1, answers=1))
    until_taken(talk, controller)
    assert talk.new_plan() is None
    assert ask(talk, controller, plan(2, answers=2)) == plan(2, answers=2)
    talk.close("done")


def test_closing_releases_whoever_waits_for_a_plan(controller: Controller) -> None:
    talk = controller.welcome()
    answers: queue.Queue[Plan | None] = queue.Queue()
    thread = threading.Thread(target=lambda: answers.put(talk.ask_for_plan(TIMES)))
    thread.start()
    assert controller.hear() == TIMES  # it waits now
    talk.close("enough")
    assert answers.get(timeout=PATIENCE) is None
    thread.join(PATIENCE)


def test_without_room_for_a_question_nobody_waits(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_UNSENT", 0)
    talk = controller.welcome()
    assert talk.ask_for_plan(TIMES) is None
    assert not talk.lost
    talk.close("done")


# Bytes to give back.


def test_bytes_are_asked_back_once(controller: Controller) -> None:
    talk = controller.welcome()
    controller.say(Shrink(3, 0), Shrink(4, 0))
    until_taken(talk, controller)
    assert talk.debt == 7
    talk.settle(5)
    assert talk.debt == 2
    talk.settle(2)
    assert talk.debt == 0
    talk.close("done")


def test_a_plan_that_came_after_the_request_settles_it_once_it_is_followed(controller: Controller) -> None:
    talk = controller.welcome()
    controller.say(Shrink(3, 0), plan(1, answers=0))
    until_taken(talk, controller)
    assert talk.new_plan() == plan(1, answers=0)
    assert talk.debt == 0
    controller.say(plan(2, answers=0), Shrink(3, 0))
    until_taken(talk, controller)
    assert talk.new_plan() == plan(2, answers=0)  # which knows nothing of the request
    assert talk.debt == 3
    talk.close("done")


@pytest.mark.parametrize(("within", "passed", "late"), [(10**9, 1.5, "0.500 s later"), (10**9, 0.5, ""), (0, 1.5, "")])
def test_bytes_that_are_late_are_said_to_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, within: int, passed: float, late: str
) -> None:
    now = 100.0
    monkeypatch.setattr(session.time, "monotonic", lambda: now)
    debt = session._Debt()
    debt.add(Shrink(3, within))
    now += passed
    debt.pay(3)
    assert late in caplog.text
    assert bool(late) == bool(caplog.text)


# Exceptions from the handlers of signals, which may come between any two lines, Python's own included.


class Strike:
    """Raises KeyboardInterrupt at the `at`th line or return of the wire, or of Python's threads, on this thread."""

    FILES = frozenset({session.__file__, channel.__file__, threading.__file__, queue.__file__})

    def __init__(self, at: int) -> None:
        self._left = at
        self.came = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in self.FILES:
            return None
        if event in ("line", "return") and not leaves_a_block(frame):
            self._left -= 1
            if not self._left:
                sys.settrace(None)
                self.came = True
                raise KeyboardInterrupt
        return self


def leaves_a_block(frame: FrameType) -> bool:
    """Tell whether a `with` statement ends its block on its own line, where Python looks for no signals."""
    starts = [start for start, _, number in frame.f_code.co_lines() if number == frame.f_lineno]
    lines = linecache.getlines(frame.f_code.co_filename)
    return lines[frame.f_lineno - 1].lstrip().startswith("with ") and frame.f_lasti != starts[0]


def struck(at: int, act: Callable[[], object]) -> bool:
    """Do `act`, struck at its `at`th line. Return False where it has fewer."""
    strike = Strike(at)
    sys.settrace(strike)
    try:
        act()
    except KeyboardInterrupt:
        assert strike.came
    finally:
        sys.settrace(None)
    return strike.came


def from_another_thread(act: Callable[[], object]) -> None:
    """Do `act` on another thread, which must not wait for what this one holds."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits for a lock"


ACTS: dict[str, Callable[[session.Session], object]] = {
    "telling": lambda talk: talk.tell(REPORT),
    "asking": lambda talk: talk.ask_for_plan(TIMES),
    "a new plan": lambda talk: (talk._take(plan(1, answers=0)), talk.new_plan()),
    "bytes to give back": lambda talk: (talk._take(Shrink(3, 0)), talk.settle(3)),
}


@pytest.mark.parametrize("name", ACTS)
def test_an_exception_at_any_line_leaves_no_lock_locked(controller: Controller, name: str) -> None:
    controller.terms = dataclasses.replace(TERMS, planning_ns=1)
    talk, at = controller.welcome(), 1
    while struck(at, lambda: ACTS[name](talk)):
        from_another_thread(lambda: talk._take(Shrink(1, 0)))
        from_another_thread(lambda: talk.tell(REPORT))
        at += 1
    assert at > 5
    assert not talk.lost
    talk.close("done")


def test_an_exception_while_closing_leaves_no_lock_locked(controller: Controller) -> None:
    at, came = 1, True
    while came:
        talk = controller.welcome()
        came = struck(at, lambda talk=talk: talk.close("done"))  # type: ignore[misc]
        from_another_thread(lambda talk=talk: talk.close("done"))  # type: ignore[misc]
        assert talk.lost
        assert not talk._threads[1].is_alive()
        controller.hang_up()
        at += 1
    assert at > 5


def test_the_handler_of_a_signal_may_use_the_session_that_it_interrupts(controller: Controller) -> None:
    talk = controller.welcome()
    with talk._changing:
        talk.tell(REPORT)
        talk.close("done")
    assert [controller.hear(), controller.hear()] == [REPORT, Bye("done")]


# Endings: each has words of its own, and only one is called a loss of the controller.


ENDINGS: dict[str, tuple[Callable[[Controller], None], str]] = {
    "bye": (lambda c: c.say(Bye("the night begins")), "the controller said bye (the night begins)"),
    "failure": (
        lambda c: c.say(Failure("protocol", "a report is odd")),
        "the controller ended the session (protocol: a report is odd)",
    ),
    "garbage": (lambda c: c.garble(), "the controller broke the protocol"),
    "hanging up": (lambda c: c.hang_up(), "the controller is gone (the other side closed the connection)"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_each_ending_has_its_own_words(controller: Controller, caplog: pytest.LogCaptureFixture, name: str) -> None:
    end, words = ENDINGS[name]
    caplog.set_level(logging.INFO, "optimem")
    talk = controller.welcome()
    end(controller)
    until_over(talk)
    controller.hang_up()
    talk._threads[0].join(PATIENCE)
    assert talk.ending.startswith(words)
    assert [record.getMessage() for record in caplog.records] == [f"optimem: {talk.ending}; the last plan stays in force"]
    assert ("gone" in caplog.text) == (name == "hanging up")
    assert talk.ask_for_plan(TIMES) is None
    talk.close("done")
    assert talk.ending.startswith(words)


def test_stop_is_answered_with_bye_and_handed_on(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(session, "on_stop", stopped.put)
    talk = controller.welcome()
    talk.tell(REPORT)
    controller.say(Stop("enough"))
    assert stopped.get(timeout=PATIENCE) == "enough"
    assert [controller.hear(), controller.hear()] == [REPORT, Bye("stopped")]
    assert talk.ending == "the controller stopped it (enough)"
    talk._threads[1].join(PATIENCE)  # nothing is left that waits for messages to send
    assert not talk._threads[1].is_alive()
    talk.close("done")


def test_what_ends_a_session_while_a_plan_is_awaited_is_no_error(controller: Controller) -> None:
    talk = controller.welcome()
    assert ask(talk, controller, Failure("internal", "a fault")) is None
    assert "internal: a fault" in talk.ending
    controller.hang_up()
    talk._threads[0].join(PATIENCE)  # which logs how it ended
    talk.close("done")


def test_closing_says_bye_and_no_more(controller: Controller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "optimem")
    talk = controller.welcome()
    for _ in range(2):
        talk.close("done")
    talk.tell(REPORT)
    assert controller.hear() == Bye("done")
    with pytest.raises(channel.ChannelClosed):
        controller.hear()
    for thread in talk._threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert (talk.ending, caplog.text) == ("this side closed it (done)", "")


def test_a_controller_that_does_not_read_is_called_stuck(controller: Controller) -> None:
    controller.terms = dataclasses.replace(TERMS, writing_ns=50_000_000)
    talk = controller.welcome()
    talk.tell(Measured([1 << 60] * 500_000, [], [], [], 0, 0, 0, 0, 0, []))  # more than a socket holds
    until_over(talk)
    assert talk.ending == "the controller is stuck (the other side has not read for 0.05 s)"
    talk.close("done")


def test_a_failure_before_any_session_is_told_however_long_its_text(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMEM_SPAWNED", "1")
    session.announce_failure("bad_input", "\N{SNOWMAN}" * MAX_FRAME)
    told = channel.Channel(controller._listener.accept()[0]).receive(PATIENCE)
    assert isinstance(told, Failure)
    assert set(told.text) == {"\N{SNOWMAN}"}


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (Failure("busy", "64 sessions"), "busy: 64 sessions"),
        (Stop("enough"), "answered Stop where it should have said welcome"),
    ],
)
def test_no_session_opens_without_a_welcome(controller: Controller, answer: Any, match: str) -> None:
    raised: queue.Queue[BaseException] = queue.Queue()

    def attempt() -> None:
        try:
            session.Session.open(HELLO)
        except ControllerError as error:
            raised.put(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    controller.accept()
    controller.say(answer)
    assert match in str(raised.get(timeout=PATIENCE))
    thread.join(PATIENCE)
