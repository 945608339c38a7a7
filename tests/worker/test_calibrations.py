"""What is kept between runs: reused where it fits, ignored where it is not as it should be, and never an error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import optimem
from optimem.card.device import Device
from optimem.card.names import open_device
from optimem.learning import calibrations
from optimem.learning.calibrate import Link
from optimem.learning.calibrations import KeptSteps, kept_link, model_key, recall, remember
from optimem.wire.protocol import Manifest, Wish

LINK = Link(10_000, 25_000_000_000)
ROOM = 64 << 20
RECORDED = KeptSteps([10, 20], [5, 5])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of our own."""
    monkeypatch.setenv("OPTIMEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def never() -> Link:
    raise AssertionError("the link was measured again")


def only_file(cache: Path) -> Path:
    (file,) = cache.iterdir()
    return file


def manifest(**changes: Any) -> Manifest:
    wish = Wish(mode="page", vram="", max_layer_size=0, max_capacity="")
    told = {
        "model": "M",
        "wish": wish,
        "recorded": True,
        "weights_bytes": 1,
        "kept_bytes": 0,
        "buffer_bytes": 0,
        "calls": 1,
        "steps": 2,
    }
    return Manifest(**{**told, "units": [], **changes})


def test_a_link_is_measured_once(card: torch.device, cache: Path) -> None:
    device = open_device("sim")
    assert kept_link(device, "pinned", ROOM, lambda: LINK) == LINK
    assert kept_link(device, "pinned", ROOM, never) == LINK
    assert kept_link(device, "pageable", ROOM, lambda: Link(1, 2_000_000)) == Link(1, 2_000_000)
    assert kept_link(device, "pinned", ROOM, never) == LINK


def test_the_second_model_on_a_card_does_not_measure_its_link(
    card: torch.device, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    real = optimem.learning.times.measure_link  # type: ignore[attr-defined]
    monkeypatch.setattr(optimem.learning.times, "measure_link", lambda *a: measured.append(1) or real(*a))  # type: ignore[attr-defined]
    for _ in range(2):
        model = optimem.page(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).eval(), card)
        model(torch.ones(1, 64))
        optimem.detach(model)
    assert len(measured) == 1


def test_the_second_run_of_a_model_plans_with_the_times_of_the_first(card: torch.device, cache: Path) -> None:
    told: list[list[int]] = []
    for _ in range(2):
        torch.manual_seed(0)
        model = optimem.page(nn.Sequential(*[nn.Linear(256, 256) for _ in range(8)]).eval(), card, vram="50%")
        with torch.no_grad():
            for forward in range(7):
                model(torch.ones(64, 256, device=card))
                if forward in (0, 6):
                    _, times = optimem._attached[id(model)].told()
                    assert times is not None
                    told.append(times.step_compute_ns)
        optimem.detach(model)
    recorded, corrected, recalled, _ = told
    assert recalled == corrected != recorded


def test_only_the_owner_may_read_what_is_kept(card: torch.device, cache: Path) -> None:
    kept_link(open_device("sim"), "pinned", ROOM, lambda: LINK)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert only_file(cache).stat().st_mode & 0o777 == 0o600


def test_a_link_measured_with_few_bytes_is_measured_again_with_more(card: torch.device, cache: Path) -> None:
    device = open_device("sim")
    kept_link(device, "pinned", 1 << 20, lambda: Link(1, 1_000_000))
    assert kept_link(device, "pinned", 1 << 20, never) == Link(1, 1_000_000)
    assert kept_link(device, "pinned", ROOM, lambda: LINK) == LINK
    assert kept_link(device, "pinned", 1 << 20, never) == LINK


def test_an_old_link_is_measured_again(card: torch.device, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = open_device("sim")
    kept_link(device, "pinned", ROOM, lambda: Link(1, 1_000_000))
    now = calibrations._now()
    monkeypatch.setattr(calibrations, "_now", lambda: now + 40 * 24 * 3600)
    assert kept_link(device, "pinned", ROOM, lambda: LINK) == LINK


@pytest.mark.parametrize("what", ["uuid", "driver", "link"])
def test_another_card_driver_or_link_is_another_calibration(
    card: torch.device, cache: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    device = open_device("sim")
    kept_link(device, "pinned", ROOM, lambda: Link(1, 1_000_000))
    monkeypatch.setattr(device, what, lambda: "another")
    assert kept_link(device, "pinned", ROOM, lambda: LINK) == LINK


def test_a_link_that_could_not_be_measured_is_not_kept(card: torch.device, cache: Path) -> None:
    device = open_device("sim")
    assert kept_link(device, "pinned", ROOM, lambda: Link(0, 0)) == Link(0, 0)
    assert kept_link(device, "pinned", ROOM, lambda: LINK) == LINK


def replaced(key: str, value: Any) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))

    return change


def links(*entry: Any) -> Callable[[Path], None]:
    return replaced("links", {"pinned": list(entry)})


def written(text: str | bytes) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(text if isinstance(text, bytes) else text.encode()) and None


def replaced_by_a_link(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def replaced_by_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def replaced_by_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


NOW = calibrations._now()

HOSTILE = {
    "empty": written(""),
    "no json": written("{"),
    "no text": written(b"\xff\xfe"),
    "deep": written("[" * 100_000),
    "large": written(" " * (5 << 20)),
    "a list": written("[]"),
    "a long number": written("1" * 10_000),
    "another version": replaced("version", 2),
    "another card": replaced("card", ["a", "b", "c", "d"]),
    "no links": replaced("links", None),
    "no entry": links(),
    "a negative latency": links(-1, 10**9, ROOM, NOW),
    "no rate": links(0, 0, ROOM, NOW),
    "a rate beyond reason": links(0, 10**20, ROOM, NOW),
    "a fraction": links(0, 1.5e9, ROOM, NOW),
    "not a number": links(0, float("nan"), ROOM, NOW),
    "a boolean": links(True, 10**9, ROOM, NOW),
    "a text": links(0, "10", ROOM, NOW),
    "from the future": links(0, 10**9, ROOM, NOW + 10**6),
    "a copy that begins after a second": links(10**9, 10**9, ROOM, NOW),
    "a rate that no RAM has": links(0, 10**14, ROOM, NOW),
    "measured with more than the card has": links(0, 10**9, 1 << 49, NOW),
    "others may write": lambda file: file.chmod(0o622),
    "others may write to the folder": lambda file: file.parent.chmod(0o777),
    "a symbolic link": replaced_by_a_link,
    "a pipe": replaced_by_a_pipe,
    "a folder": replaced_by_a_folder,
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_as_it_should_be_is_measured_again(
    card: torch.device, cache: Path, hostile: Callable[[Path], None]
) -> None:
    device = open_device("sim")
    kept_link(device, "pinned", ROOM, lambda: Link(1, 1_000_000))
    hostile(only_file(cache))
    assert kept_link(device, "pinned", ROOM, lambda: LINK) == LINK


@pytest.mark.parametrize("where", ["", "/proc/nowhere", "/dev/null"])
def test_without_a_cache_the_link_is_measured_each_time(
    card: torch.device, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("OPTIMEM_CACHE", where)
    measured: list[int] = []
    for _ in range(2):
        kept_link(open_device("sim"), "pinned", ROOM, lambda: measured.append(1) or LINK)
    assert len(measured) == 2


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPTIMEM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert calibrations.directory() == tmp_path / "x" / "optimem"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert calibrations.directory() == tmp_path / ".cache" / "optimem"


def test_step_times_come_back_for_the_same_model_and_inputs_alone(card: torch.device, cache: Path) -> None:
    device = open_device("sim")
    steps = KeptSteps([1, 2], [3, 4])
    key = model_key(manifest(), (torch.ones(1, 3),))
    assert recall(device, key, RECORDED) is None
    remember(device, key, steps)
    assert recall(device, key, RECORDED) == steps
    assert recall(device, key, KeptSteps([10, 20, 30], [5, 5, 5])) is None
    assert model_key(manifest(), (torch.ones(1, 3),)) == key
    assert model_key(manifest(), (torch.ones(2, 3),)) != key
    assert model_key(manifest(), (torch.ones(1, 3).half(),)) != key
    assert model_key(manifest(calls=2), (torch.ones(1, 3),)) != key


NO_TIMES: dict[str, object] = {
    "negative": [[1, -2], [3, 4], 1],
    "too few": [[1, 2], [3], 1],
    "no age": [[1, 2]],
    "no list": {},
    "a boolean": [[1, True], [3, 4], 1],
    "from the future": [[1, 2], [3, 4], NOW + 10**6],
    "activations larger than the card": [[1, 2], [3, 1 << 49], 1],
    "activations that the same forward did not take": [[1, 2], [3, 1 << 33], 1],
    "a step of hours": [[1, 10**13], [3, 4], 1],
    "steps that the same forward was much faster at": [[10**8, 10**8], [3, 4], 1],
}


@pytest.mark.parametrize("entry", NO_TIMES.values(), ids=NO_TIMES)
def test_step_times_that_are_none_are_ignored(card: torch.device, cache: Path, entry: object) -> None:
    device = open_device("sim")
    remember(device, "key", KeptSteps([1, 2], [3, 4]))
    replaced("models", {"key": entry})(only_file(cache))
    assert recall(device, "key", RECORDED) is None


def test_the_card_bounds_activations_even_where_the_forward_took_many(
    card: torch.device, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "memory", lambda self: (1 << 20, 1 << 20))
    device = open_device("sim")
    remember(device, "key", KeptSteps([1, 2], [3, (1 << 20) + 1]))
    assert recall(device, "key", KeptSteps([10, 20], [1 << 19, 1 << 19])) is None
    remember(device, "key", KeptSteps([1, 2], [3, 1 << 20]))
    assert recall(device, "key", KeptSteps([10, 20], [1 << 19, 1 << 19])) is not None


def test_times_that_no_plan_can_be_made_from_count_as_absent(card: torch.device, cache: Path) -> None:
    """They are in range, and the budget is not."""

    def run() -> None:
        torch.manual_seed(0)
        model = optimem.page(nn.Sequential(*[nn.Linear(256, 256) for _ in range(6)]).eval(), card, vram="2MiB")
        with torch.no_grad():
            for _ in range(7):
                model(torch.ones(2, 256))
        optimem.detach(model)

    def kept() -> list[list[Any]]:
        return list(json.loads(only_file(cache).read_text())["models"].values())

    run()
    (before,) = kept()
    absurd = [before[0], [8 << 20 for _ in before[1]], before[2]]
    (key,) = json.loads(only_file(cache).read_text())["models"]
    replaced("models", {key: absurd})(only_file(cache))
    run()
    assert [entry[1] for entry in kept()] == [before[1]]


def test_what_is_kept_is_bounded_and_the_oldest_goes(
    card: torch.device, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = open_device("sim")
    one = KeptSteps([10], [0])
    for index in range(20):
        remember(device, str(index), KeptSteps([index], [0]))
    assert recall(device, "19", one) == KeptSteps([19], [0])
    assert recall(device, "0", one) is None
    remember(device, "large", KeptSteps([10**13] * 65_536, [1 << 50] * 65_536))
    remember(device, "larger", KeptSteps([10**13] * 65_536, [1 << 50] * 65_536))
    assert only_file(cache).stat().st_size <= 4 << 20
    assert recall(device, "19", one) is None
    for index in range(40):
        named = f"card {index}"
        monkeypatch.setattr(Device, "uuid", lambda self, named=named: named)
        kept_link(device, "pinned", ROOM, lambda: LINK)
    assert len(list(cache.iterdir())) == 32
    assert kept_link(device, "pinned", ROOM, never) == LINK


def test_files_of_others_in_the_folder_stay(card: torch.device, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"result{index}.json" for index in range(50)] + [
        ".editor.tmp",
        "optimem-notes.json",
        f"optimem-{'x' * 32}.json",
        f"{'0' * 32}.json",
        ".optimem-draft.tmp",
    ]
    cache.mkdir(mode=0o700)
    for name in names:
        (cache / name).write_text("{}")
        os.utime(cache / name, (1, 1))  # older than all of ours
    (cache / ".optimem-0123_abc.tmp").write_text("cut short")
    os.utime(cache / ".optimem-0123_abc.tmp", (1, 1))
    for index in range(33):
        monkeypatch.setattr(Device, "uuid", lambda self, named=f"card {index}": named)
        kept_link(open_device("sim"), "pinned", ROOM, lambda: LINK)
    left = {file.name for file in cache.iterdir()}
    assert left >= set(names)
    assert len(left - set(names)) == 32
    assert ".optimem-0123_abc.tmp" not in left
