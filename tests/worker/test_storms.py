"""Storms: signals, forks, requests for bytes, kills and writes by the thousand, at random moments. After each, the next
forward has the bits of the plain model. `make soak` runs them; each prints one line of counts.

$OPTIMEM_SOAK is the measure: as many forwards as the other soak test makes. $OPTIMEM_STORM seeds the draws.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import models
import optimem
from ctrl_c import PACKAGE, TimeLimit
from optimem.life.attachment import Attachment
from optimem.wire import contact, private
from optimem.wire.protocol import Shrink
from same import bits, found
from test_contact import Controllers

SOAK = int(os.environ.get("OPTIMEM_SOAK", "0"))
SEED = os.environ.get("OPTIMEM_STORM", "0")
MODES = {"page": optimem.page, "chunk": optimem.chunk, "fit": optimem.fit}

pytestmark = [
    pytest.mark.skipif(not SOAK, reason="a storm: make soak, or OPTIMEM_SOAK=10000"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells of children and open files"),
    pytest.mark.usefixtures("slow_cpu"),
]


class Fixed(models.Stack):
    """Reads one buffer, and writes another in a way that may be done twice."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", models.rows(models.WIDTH))
        self.register_buffer("latest", torch.zeros(models.WIDTH))

    def forward(self, x: torch.Tensor) -> Any:
        self.latest.copy_(x.mean(0))
        return super().forward(x * self.scale) + self.latest


class Cache(models.Stack):
    """Goes through its layers in a loop; a cache grows meanwhile."""

    def forward(self, x: torch.Tensor) -> Any:
        cache: list[torch.Tensor] = []
        for _ in range(3):
            x = super().forward(x + sum(cache)) if cache else super().forward(x)
            cache.append(x)
        return x, torch.stack(cache)


KINDS: list[Callable[[], models.Stack]] = [models.Stack, Fixed, Cache]


class Pair:
    """A paged model beside its plain twin. `whole` and `part` compare bits."""

    def __init__(self, kind: Callable[[], models.Stack], mode: str, vram: str, *, attach: bool = True) -> None:
        torch.manual_seed(0)
        self.mode, self.vram = mode, vram
        self.plain = kind().eval()
        self.model = copy.deepcopy(self.plain)
        self.before = found(self.model)
        self.x = models.rows()
        self.learn()
        if attach:
            self.attach()

    def attach(self) -> None:
        MODES[self.mode](self.model, device="sim", vram=self.vram)

    def learn(self) -> None:
        """Compute what is expected."""
        x = self.x.to(self.plain.layers[0].weight.dtype)
        with torch.no_grad():
            self.wanted = bits(self.plain(x))
            self.parts = [bits(layer(x)) for layer in self.plain.layers]
        self.input = x

    def whole(self) -> None:
        with torch.no_grad():
            assert bits(self.model(self.input)) == self.wanted, "the bits of the whole model differ"

    def part(self, index: int) -> None:
        with torch.no_grad():
            assert bits(self.model.layers[index](self.input)) == self.parts[index], f"the bits of layer {index} differ"

    def any(self, draw: random.Random) -> None:
        """Call the model, or at times a part of it."""
        if draw.random() < 0.3:
            self.part(draw.randrange(len(self.parts)))
        else:
            self.whole()

    def between(self) -> None:
        """See that all weights are on the CPU."""
        assert {tensor.device.type for tensor in self.model.parameters()} == {"cpu"}

    @property
    def attachment(self) -> Attachment:
        attachment = optimem._find(self.model)
        assert attachment is not None, "the model is detached"
        return attachment

    def end(self, *, as_found: bool = True) -> None:
        """Detach, and see that the model is as it was found."""
        optimem.detach(self.model)
        assert optimem.status(self.model) is None
        self.between()
        if as_found:
            assert found(self.model) == self.before
        assert bits(list(self.model.parameters())) == bits(list(self.plain.parameters()))
        self.whole()


VRAMS = ["40%", "60%", "150%"]


def pairs(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[..., Pair]]]:
    """Return, for each model in each mode, with released bytes poisoned and not, its name and what attaches it."""
    names = [(kind, mode, poison) for poison in ("", "1") for mode in MODES for kind in KINDS]
    for index, (kind, mode, poison) in enumerate(names):
        monkeypatch.setenv("OPTIMEM_POISON", poison)
        vram = VRAMS[(index + index // 9) % len(VRAMS)]
        name = f"{kind.__name__} {mode} {vram}{' poisoned' if poison else ''}"
        yield name, lambda kind=kind, mode=mode, vram=vram, **more: Pair(kind, mode, vram, **more)
        gc.collect()


COMBINATIONS = 2 * len(MODES) * len(KINDS)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str, Counter[str]], None]:
    def line(name: str, counts: Counter[str]) -> None:
        with capsys.disabled():
            print(f"\n{name}: " + ", ".join(f"{counts[each]} {each}" for each in sorted(counts)), flush=True)

    return line


@contextlib.contextmanager
def said(what: object) -> Iterator[None]:
    """Have an error say in which storm it came."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


# Signals


class Alarm:
    """Raises an error at a random moment, and notes where it came."""

    def __init__(self, counts: Counter[str]) -> None:
        self.counts, self.error, self.rang = counts, TimeLimit, False
        self.swallowed = False

    def __enter__(self) -> Alarm:
        self._before, self._hook = signal.signal(signal.SIGALRM, self._ring), sys.unraisablehook
        sys.unraisablehook = self._not_raised
        return self

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        sys.unraisablehook = self._hook

    def _not_raised(self, what: Any) -> None:
        if isinstance(what.exc_value, (TimeLimit, KeyboardInterrupt)):
            self.counts["in finalizers"] += 1
        else:
            self._hook(what)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self.rang = True
        files = []
        while frame is not None:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        self.counts[self.error.__name__] += 1
        ours = [str(PACKAGE) in file for file in files]
        self.counts["in our own code"] += ours[0]
        self.counts["in what our code had called"] += not ours[0] and any(ours)
        raise self.error

    def during(self, does: Callable[[], None], after: float, error: type[BaseException]) -> None:
        """Do something again and again until the alarm has rung in it."""
        self.rang, self.error = False, error
        try:
            signal.setitimer(signal.ITIMER_REAL, after)
            while not self.rang:
                does()
        except error:
            return
        self.counts["swallowed"] += 1


def test_signals(monkeypatch: pytest.MonkeyPatch, tell: Any) -> None:
    counts: Counter[str] = Counter()
    draw = random.Random(f"signals {SEED}")
    with Alarm(counts) as alarm:
        for name, make in pairs(monkeypatch):
            pair = make()
            for event in range(max(5, SOAK // 3 // COMBINATIONS)):
                if event % 15 == 14:  # the early forwards too
                    with said(name):
                        pair.end()
                        pair.attach()
                error = draw.choice([TimeLimit, KeyboardInterrupt])
                with said((name, event, error.__name__)):
                    alarm.during(functools.partial(pair.any, draw), draw.uniform(0.0001, 0.01), error)
                    pair.any(draw)
                    pair.between()
            with said(name):
                pair.whole()
                pair.end()
    tell("signals", counts)
    assert not counts["swallowed"] - counts["in finalizers"] > 0


# Forks


def children() -> set[int]:
    """Return the children of this process, ended ones that nobody waited for too."""
    ours = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            _, parent = stat.read_text().rpartition(")")[2].split()[:2]
            ours |= {int(stat.parent.name)} if int(parent) == os.getpid() else set()
    return ours


def ends(pair: Pair) -> None:
    pass


def drops(pair: Pair) -> None:
    del pair.model
    gc.collect()


def asks(pair: Pair) -> None:
    status = optimem.status(pair.model)
    assert status is not None
    assert status.controller.startswith("lost: it belongs to the process")


def detaches(pair: Pair) -> None:
    optimem.detach(pair.model)
    pair.whole()


def calls(pair: Pair) -> None:
    try:
        pair.whole()
    except optimem.BadInput:
        return
    raise AssertionError("a call in a child was not refused")


def attaches(pair: Pair) -> None:
    other = Pair(models.Stack, "page", "60%")
    other.whole()
    other.end()


def waits(pair: Pair) -> None:
    while True:
        asks(pair)


DEEDS = [ends, drops, asks, detaches, calls, attaches, waits]


def fork(pair: Pair, does: Callable[[Pair], None], *, leaves: bool) -> int:
    """Have a child do something and end, with what Python does at the end of a program or without it."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        does(pair)
        if leaves:
            optimem._farewell()
            private._private.end()
        code = 0
    except BaseException as error:
        print(f"child {does.__name__}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def test_forks(monkeypatch: pytest.MonkeyPatch, tell: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    private._private.end()  # that of earlier tests
    counts: Counter[str] = Counter()
    draw = random.Random(f"forks {SEED}")
    for name, make in pairs(monkeypatch):
        pair = make()
        session = pair.attachment.session
        controller = private._private._child
        assert controller is not None
        pair.whole()
        before = children()
        files = len(os.listdir("/proc/self/fd"))
        for event in range(max(3, SOAK // 15 // COMBINATIONS)):
            does = draw.choice(DEEDS)
            with said((name, event, does.__name__)):
                child = fork(pair, does, leaves=draw.random() < 0.5)
                counts[does.__name__] += 1
                for _ in range(draw.randrange(4)):
                    pair.any(draw)
                if does is waits or draw.random() < 0.2:
                    time.sleep(draw.uniform(0, 0.02))
                    os.kill(child, signal.SIGKILL)
                    counts["killed"] += 1
                    os.waitpid(child, 0)
                else:
                    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                pair.any(draw)
                pair.between()
                status = optimem.status(pair.model)
                assert status is not None
                assert status.controller == "connected"
                assert pair.attachment.session is session
        with said(name):
            assert controller.poll() is None
            assert children() == before
            assert len(os.listdir("/proc/self/fd")) <= files
            counts["folders left by killed children"] += len(list(tmp_path.iterdir())) - 1
            pair.end()
    private._private.end()
    tell("forks", counts)
    assert list(tmp_path.iterdir()) == []


# Requests for bytes


class Asker(threading.Thread):
    """Asks for bytes back and sends plans, at random moments until `stop`."""

    def __init__(self, pair: Pair, seed: str, counts: Counter[str]) -> None:
        super().__init__(daemon=True)
        self.stop, self.asked, self.error = threading.Event(), 0, ""
        self._pair, self._draw, self._counts = pair, random.Random(seed), counts
        self._version = 1000

    def run(self) -> None:
        while not self.stop.is_set():
            self.ask()
            time.sleep(self._draw.uniform(0, 0.004))

    def ask(self) -> None:
        """Do one of both."""
        attachment = self._pair.attachment
        plan = attachment._agreed.agreement.plan
        if self._draw.random() < 0.1 and plan.version and attachment._agreed.agreement.recording is not None:
            self._version += 1
            attachment.session._take(dataclasses.replace(plan, version=self._version))
            self._counts["plans"] += 1
        else:
            most = self._draw.choice([100, 5_000, 20_000])
            attachment.session._take(Shrink(self._draw.randint(1, most), self._draw.choice([0, 1, 1 << 40])))
            self._counts["requests"] += 1
        self.asked += 1


def test_shrinks(monkeypatch: pytest.MonkeyPatch, tell: Any) -> None:
    counts: Counter[str] = Counter()
    draw = random.Random(f"shrinks {SEED}")
    for name, make in pairs(monkeypatch):
        events = 0
        while events < max(20, SOAK // 2 // COMBINATIONS):
            pair = make()
            counts["attached"] += 1
            if draw.random() < 0.5:  # plans of ours may come then, of which the controller knows nothing
                pair.attachment.session.tell = lambda message: None  # type: ignore[method-assign]
            asker = Asker(pair, f"{name} {events} {SEED}", counts)
            early = draw.random() < 0.5
            with said((name, events, "early" if early else "late")):
                if early:
                    for _ in range(draw.randrange(3)):
                        asker.ask()
                asker.start()
                try:
                    for _ in range(draw.randint(5, 60)):
                        pair.any(draw)
                        pair.between()
                finally:
                    asker.stop.set()
                    asker.join()
                pair.whole()
                pair.whole()
                allowance = pair.attachment._agreed.allowance
                assert not allowance.owed(), f"{allowance.owed()} bytes are still owed"
                taken = pair.attachment._tied.device_bytes()
                assert taken <= allowance._granted, f"weights take {taken} bytes of {allowance._granted}"
                counts["ended below what was granted"] += allowance.given > 0
                counts["ended above what is left"] += taken > allowance.room()
                pair.end()
            events += asker.asked
    tell("shrinks", counts)


# Kills


def test_controllers_killed(monkeypatch: pytest.MonkeyPatch, tell: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(contact, "_FIRST_S", 0.01)
    monkeypatch.setattr(contact, "_LONGEST_S", 0.05)
    tmp_path.chmod(0o700)
    controllers = Controllers(str(tmp_path / "s"))
    monkeypatch.setenv("OPTIMEM_SOCKET", controllers.path)
    counts: Counter[str] = Counter()
    draw = random.Random(f"kills {SEED}")
    threads = threading.active_count()
    for name, make in pairs(monkeypatch):
        controllers.start()
        pair = make()
        for event in range(max(2, SOAK // 30 // COMBINATIONS)):
            with said((name, event)):
                before = pair.attachment.session
                assert controllers._process is not None
                killer = threading.Timer(draw.uniform(0, 0.02), controllers._process.kill)
                killer.start()
                while not before.lost:
                    pair.any(draw)
                    counts["forwards until it was noticed"] += 1
                killer.join()
                controllers.end()
                counts["controllers killed"] += 1
                for _ in range(draw.randrange(4)):
                    pair.any(draw)
                    pair.between()
                controllers.start()
                late = time.monotonic() + 60
                while pair.attachment.session is before or pair.attachment.session.lost:
                    assert time.monotonic() < late, f"not found: {optimem.status(pair.model)}"
                    pair.any(draw)
                    counts["forwards until the next one was found"] += 1
                if draw.random() < 0.2:  # the early forwards too
                    pair.end()
                    pair.attach()
        with said(name):
            pair.end()
            controllers.end()
    tell("kills of controllers", counts)
    late = time.monotonic() + 60
    while threading.active_count() > threads:
        assert time.monotonic() < late, f"threads are left: {threading.enumerate()}"
        time.sleep(0.01)


NURSERY = """
import os, random, sys, torch
import test_storms as storms
torch.set_num_threads(1)
for line in sys.stdin:
    kind, mode, vram, poison = line.split()
    child = os.fork()
    if child == 0:
        os.environ["OPTIMEM_POISON"] = poison.strip("-")
        draw = random.Random(os.getpid())
        try:
            while True:
                pair = storms.Pair(storms.KINDS[int(kind)], mode, vram)
                for _ in range(draw.randint(1, 40)):
                    pair.any(draw)
                pair.end()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(3)
    print(child, flush=True)
    print(*os.waitpid(child, 0), flush=True)
"""


def test_workers_killed(monkeypatch: pytest.MonkeyPatch, tell: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    controllers = Controllers(str(tmp_path / "s"))
    controllers.start()
    assert controllers._process is not None
    controller = controllers._process.pid
    monkeypatch.setenv("OPTIMEM_SOCKET", controllers.path)
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "XDG_RUNTIME_DIR": str(runtime),
        "SIMGPU_CARD": f"storms-{os.getpid()}",
        "PYTHONWARNINGS": "ignore",
    }
    counts: Counter[str] = Counter()
    draw = random.Random(f"workers {SEED}")
    Pair(models.Stack, "page", "60%").end()
    files = len(os.listdir(f"/proc/{controller}/fd"))
    tasks = Path(f"/proc/{controller}/status")
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    for _ in range(max(10, SOAK // 30)):
        kind, mode = draw.randrange(len(KINDS)), draw.choice([*MODES])
        print(kind, mode, draw.choice(VRAMS), draw.choice("-1"), file=nursery.stdin, flush=True)
        child = int(nursery.stdout.readline())
        time.sleep(draw.choice([draw.uniform(0, 0.1), draw.uniform(0, 0.6)]))
        os.kill(child, signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(int(nursery.stdout.readline().split()[1]))
        counts[f"{mode} workers"] += 1
        assert ended == -signal.SIGKILL, f"a worker ended by itself in mode {mode}, exit code {ended}"
        assert controllers._process.poll() is None, "the controller has ended"
    nursery.stdin.close()
    assert nursery.wait(60) == 0
    pair = Pair(models.Stack, "page", "60%")
    for _ in range(9):
        pair.whole()
    pair.end()
    late = time.monotonic() + 60
    while len(os.listdir(f"/proc/{controller}/fd")) > files:
        assert time.monotonic() < late, f"{len(os.listdir(f'/proc/{controller}/fd'))} files are open, {files} were"
        time.sleep(0.01)
    rss = next(line.split()[1] for line in tasks.read_text().splitlines() if line.startswith("VmRSS"))
    counts["MiB of the controller"] = int(rss) >> 10
    counts["folders left"] = len(list(runtime.iterdir()))
    controllers.end(signal.SIGTERM)
    tell("kills of workers", counts)
    assert list(runtime.iterdir()) == []
    assert {each.name for each in tmp_path.iterdir()} == {"runtime"}


# Writes


def _some(model: models.Stack, draw: random.Random) -> nn.Parameter:
    return draw.choice(list(model.parameters()))


def in_place(model: models.Stack, draw: random.Random) -> None:
    with torch.no_grad():
        _some(model, draw).mul_(draw.choice([0.5, -1, 1.25]))


def by_data(model: models.Stack, draw: random.Random) -> None:
    _some(model, draw).data.mul_(draw.choice([0.5, -1, 1.25]))


def other_data(model: models.Stack, draw: random.Random) -> None:
    weight = _some(model, draw)
    weight.data = weight.data.flip(0).clone()


def by_numpy(model: models.Stack, draw: random.Random) -> None:
    weight = _some(model, draw).detach()
    rows = weight.view(torch.uint8).numpy().reshape(len(weight), -1)  # numpy knows no bfloat16
    rows[:] = rows[::-1].copy()


def loaded(model: models.Stack, draw: random.Random) -> None:
    scale = draw.choice([0.5, -1, 1.25])
    state = {name: tensor * scale for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=draw.random() < 0.3)


def row_refreshed(model: models.Stack, draw: random.Random) -> None:
    _some(model, draw).data[0] = draw.random()
    optimem.refresh(model)


def cast(model: models.Stack, draw: random.Random) -> None:
    {0: model.half, 1: model.double, 2: model.bfloat16}[draw.randrange(3)]()


def cast_and_back(model: models.Stack, draw: random.Random) -> None:
    model.half().float()


def replaced(model: models.Stack, draw: random.Random) -> None:
    index = draw.randrange(len(model.layers))
    fresh = nn.Linear(models.WIDTH, models.WIDTH, dtype=model.layers[0].weight.dtype)
    fresh.load_state_dict({name: tensor.detach() * 0.5 for name, tensor in model.layers[index].state_dict().items()})
    model.layers[index] = fresh.eval()


def replaced_and_back(model: models.Stack, draw: random.Random) -> None:
    index = draw.randrange(len(model.layers))
    ours = model.layers[index]
    model.layers[index] = nn.Identity()
    model.layers[index] = ours


def parameter_replaced(model: models.Stack, draw: random.Random) -> None:
    layer = draw.choice(list(model.layers))
    layer.weight = nn.Parameter(layer.weight.detach() * 0.5)


def grown(model: models.Stack, draw: random.Random) -> None:
    if len(model.layers) > 4:
        del model.layers[-1]
    else:
        layer = nn.Linear(models.WIDTH, models.WIDTH, dtype=model.layers[0].weight.dtype)
        with torch.no_grad():
            layer.weight.fill_(draw.random())
            layer.bias.fill_(draw.random())
        model.layers.append(layer.eval())


WRITES = [in_place, by_data, other_data, by_numpy, loaded, row_refreshed]
WRITES += [cast, cast_and_back, replaced, replaced_and_back, parameter_replaced, grown]
WEIGHTS = [4, 4, 2, 4, 3, 3, 0.5, 0.5, 1, 2, 1, 1]


def write(pair: Pair, draw: random.Random) -> str:
    """Write in one way to both models."""
    (how,) = draw.choices(WRITES, WEIGHTS)
    seed = draw.random()
    how(pair.plain, random.Random(seed))
    how(pair.model, random.Random(seed))
    return how.__name__


def tame(pair: Pair) -> None:
    """Keep the weights of both models within sane bounds, and of 32 bits."""
    state = {name: tensor.float().clamp(-0.2, 0.2) for name, tensor in pair.plain.state_dict().items()}
    for model in (pair.plain, pair.model):
        model.float()
        model.load_state_dict(state)


def test_writes(monkeypatch: pytest.MonkeyPatch, tell: Any) -> None:
    counts: Counter[str] = Counter()
    draw = random.Random(f"writes {SEED}")
    for name, make in pairs(monkeypatch):
        pair = make()
        latest: list[str] = []
        for event in range(max(20, SOAK // 3 // COMBINATIONS)):
            if event % 20 == 19:
                tame(pair)
                latest.append("tame")
            for _ in range(draw.choice([1, 1, 1, 2, 4])):
                latest.append(write(pair, draw))
                counts[latest[-1]] += 1
            with said((name, event, latest[-6:])):
                pair.learn()
                for _ in range(draw.choice([1, 1, 2, 6])):
                    pair.any(draw)
                    counts["forwards"] += 1
                    latest.append("call")
                pair.between()
                assert optimem.status(pair.model) is not None, "the model is detached"
        with said(name):
            pair.end(as_found=False)
    tell("writes", counts)
