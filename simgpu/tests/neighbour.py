"""Another process on a card, without torch: holds memory, does what it is told, and can be killed.

Imported, it is the tests' side: ``Card`` in this process, ``Neighbour`` in another. Run, it is that other process.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ROOM = 1 << 18


def library() -> str:
    """The path of the card's library, without importing torch."""
    import simgpu_cli  # not in the child: it is told

    return str(simgpu_cli.library())


class Door:
    """The library's C functions; a refusal is a ValueError, a fault a RuntimeError."""

    def __init__(self, path: str) -> None:
        self.functions = ctypes.CDLL(path)
        self.functions.simgpuCardReserved.restype = ctypes.c_uint64

    def ask(self, function: str, *words: Any) -> str:
        answer = ctypes.create_string_buffer(_ROOM)
        code = getattr(self.functions, function)(*words, answer, ctypes.c_uint(_ROOM))
        text = answer.value.decode()
        if code:
            raise {1: RuntimeError, 2: ValueError}[code](text)
        return text


class Card:
    """A card, opened by this process."""

    def __init__(self, name: str, profile: str = "rtx3060", path: str = "") -> None:
        self._door = Door(path or library())
        self._card = ctypes.c_void_p()
        self._door.ask("simgpuCardOpen", name.encode(), profile.encode(), ctypes.byref(self._card))

    def reserve(self, size: int, *, anyway: bool = False) -> bool:
        taken = ctypes.c_int()
        self._door.ask("simgpuCardReserve", self._card, ctypes.c_uint64(size), int(anyway), ctypes.byref(taken))
        return bool(taken.value)

    def give_back(self, size: int) -> None:
        self._door.functions.simgpuCardGiveBack(self._card, ctypes.c_uint64(size))

    def report(self, busy: int, copy: int, now: int) -> None:
        self._door.ask("simgpuCardReport", self._card, *map(ctypes.c_uint64, (busy, copy, now)))

    def reserved(self) -> int:
        return int(self._door.functions.simgpuCardReserved(self._card))

    def set_capacity(self, size: int) -> None:
        self._door.ask("simgpuCardSetCapacity", self._card, ctypes.c_uint64(size))

    def leave(self) -> None:
        self._door.functions.simgpuCardLeave(self._card)

    def close(self) -> None:
        self._door.functions.simgpuCardClose(self._card)
        self._card = ctypes.c_void_p()


class World:
    """What the command line does to a card of that name."""

    def __init__(self, name: str, profile: str = "rtx3060") -> None:
        self.name = name
        self._door = Door(library())
        self._which = (name.encode(), profile.encode())

    def squeeze(self, size: str) -> None:
        self._door.ask("simgpuWorldSqueeze", *self._which, size.encode())

    def release(self) -> None:
        self._door.ask("simgpuWorldRelease", *self._which)

    def link(self, link: str) -> None:
        self._door.ask("simgpuWorldLink", *self._which, link.encode())

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self._door.ask("simgpuWorldStatus", *self._which))
        return status

    def held(self) -> dict[int, int]:
        """Bytes by PID."""
        return {process["pid"]: process["bytes"] for process in self.status()["processes"]}

    @property
    def state(self) -> Path:
        return Path("/dev/shm") / f"simgpu-{os.geteuid()}-{self.name}"


@contextlib.contextmanager
def world(profile: str = "rtx3060") -> Iterator[World]:
    """A card of its own, of which nothing is left."""
    made = World(f"test-{uuid.uuid4().hex}", profile)
    try:
        yield made
    finally:
        made.state.unlink(missing_ok=True)


class Neighbour:
    """A process with the card open."""

    def __init__(self, name: str, profile: str = "rtx3060", **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__, library(), name, profile],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
        self.pid = self._process.pid
        self.answer()

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def say(self, *words: object) -> None:
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"neighbour {self.pid} is gone")
        answer = json.loads(line)
        if isinstance(answer, str):
            raise ValueError(answer)
        return answer

    def ask(self, *words: object) -> Any:
        self.say(*words)
        return self.answer()

    def kill(self, *, wait: bool = True) -> None:
        """SIGKILL; without `wait` it stays a zombie until the next call."""
        self._process.kill()
        if wait:
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe and pipe.close()

    def leave(self) -> None:
        """Ends it as a process ends that closes its card."""
        self.say("close")
        self._process.communicate()


def _in_child(card: Card, sizes: list[int]) -> dict[str, int]:
    """What a forked child sees that gives back what its parent has, and then takes `sizes` itself."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        before = card.reserved()
        card.give_back(1 << 40)
        taken = all(card.reserve(size) for size in sizes)
        os.write(writer, json.dumps({"before": before, "taken": taken, "after": card.reserved()}).encode())
        card.close()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        seen: dict[str, int] = json.loads(pipe.read())
    os.wait()
    return seen


def _outlive(card: Card, size: int) -> int:
    """Leaves the card, and goes on as a forked child that takes `size` when its parent is gone; the child's PID."""
    parent = os.getpid()
    if os.fork() != 0:
        card.close()
        os._exit(0)
    while os.getppid() == parent:
        time.sleep(0.001)
    card.reserve(size)
    return os.getpid()


def _churn(card: Card, most: int) -> None:
    """Takes and gives back at random until it is killed."""
    chance = random.Random(os.getpid())
    held: list[int] = []
    while True:
        size = chance.randrange(1, most)
        if card.reserve(size):
            held.append(size)
        while held and (len(held) > 8 or chance.random() < 0.5):
            card.give_back(held.pop(chance.randrange(len(held))))


def _flicker(path: str, name: str, profile: str, times: int) -> int:
    """Opens and closes the card; how often it was then not on the card that everybody finds."""
    door, lost = Door(path), 0
    for _ in range(times):
        card = Card(name, profile, path)
        card.reserve(1)
        seen = json.loads(door.ask("simgpuWorldStatus", name.encode(), profile.encode()))
        lost += os.getpid() not in [process["pid"] for process in seen["processes"]]
        card.close()
    return lost


def _serve(path: str, name: str, profile: str) -> None:
    try:
        card = Card(name, profile, path)
    except (RuntimeError, ValueError) as error:
        _answer(str(error))
        return
    _answer(None)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "close":
            card.close()
            return
        if command == "flicker":
            card.leave()
        _answer(_obey(card, command, words))


def _answer(result: Any) -> None:
    print(json.dumps(result), flush=True)


def _obey(card: Card, command: str, words: list[str]) -> Any:
    sizes = [int(word) for word in words]
    if command == "reserve":
        return card.reserve(*sizes)
    if command == "give_back":
        card.give_back(*sizes)
    elif command == "report":
        card.report(*sizes)
    elif command == "fork":
        return _in_child(card, sizes)
    elif command == "outlive":
        return _outlive(card, *sizes)
    elif command == "exec":
        os.execv(sys.executable, [sys.executable, "-S", *sys.argv])
    elif command == "flicker":
        return _flicker(*sys.argv[1:4], *sizes)
    elif command == "churn":
        _answer(None)
        _churn(card, *sizes)
    return None


if __name__ == "__main__":
    _serve(*sys.argv[1:])
