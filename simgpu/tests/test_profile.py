"""Profiles: what is built in is complete and has sources; what is wrong is refused with a text that helps."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simgpu import profile

GOOD: dict[str, Any] = {
    "name": "A card of mine",
    "memory_bytes": 8 << 30,
    "memory_bytes_per_second": 400_000_000_000,
    "flops": {"fp64": 1, "fp32": 10**13, "fp16": 4 * 10**13, "bf16": 4 * 10**13, "int8": 8 * 10**13},
    "efficiency": {"compute": 0.5, "memory": 1},
    "launch_ns": 0,
    "link": {"generation": 4, "width": 8},
    "power_limit_mw": 150_000,
    "compute_capability": [8, 6],
    "sources": {"name": "made up"},
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[object], str]:
    def write(content: object) -> str:
        path = tmp_path / "mine.json"
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(text)
        return str(path)

    return write


def figures(of: dict[str, Any], path: str = "") -> list[str]:
    """The paths of everything in a profile that somebody must have looked up."""
    found: list[str] = []
    for field, value in of.items():
        if field == "sources":
            continue
        found += figures(value, f"{path}{field}.") if isinstance(value, dict) else [path + field]
    return found


def unsourced(of: dict[str, Any]) -> list[str]:
    parts = {path: [".".join(path.split(".")[: n + 1]) for n in range(path.count(".") + 1)] for path in figures(of)}
    assert parts
    return [path for path, prefixes in parts.items() if not any(of["sources"].get(prefix) for prefix in prefixes)]


HERE = Path(profile.__file__).parent


@pytest.mark.parametrize("name", profile.names())
def test_every_card_loads_and_every_figure_of_it_has_a_source(name: str) -> None:
    card = profile.load(name)
    assert card.key == name
    assert card.flops["fp16"] >= card.flops["fp32"] >= card.flops["fp64"]
    assert 0.3 < card.efficiency.compute <= 1
    assert unsourced(json.loads((HERE / "profiles" / f"{name}.json").read_text())) == []


def test_the_cards_that_were_asked_for_are_there() -> None:
    assert {"t4", "rtx3060", "rtx4090", "l40", "a100", "h100"} <= set(profile.names())


def test_every_figure_of_links_and_hosts_has_a_source() -> None:
    assert unsourced(json.loads((HERE / "links.json").read_text())) == []
    for host in json.loads((HERE / "hosts.json").read_text()).values():
        assert unsourced(host) == []


@pytest.mark.parametrize("name", profile.host_names())
def test_every_host_loads(name: str) -> None:
    host = profile.load_host(name)
    assert 0 < host.driver_ns < host.operation_ns
    assert host.flops_per_second("fp16") == host.flops_per_second("fp32")


def test_a_rate_is_the_peak_times_the_factor() -> None:
    card = profile.load("rtx3060")
    assert card.flops_per_second("fp16") == 25_480_000_000_000 * card.efficiency.compute
    assert card.bytes_per_second == 360_000_000_000 * card.efficiency.memory


def test_a_kind_without_a_unit_runs_as_another() -> None:
    card = profile.load("t4")
    assert card.flops_per_second("tf32") == card.flops_per_second("fp32")
    assert card.flops_per_second("fp8") == card.flops_per_second("fp16")
    with pytest.raises(ValueError, match="'fp4' is not a kind of number that t4 computes with: fp64, fp32"):
        card.flops_per_second("fp4")


def test_a_file_of_ones_own_loads(written: Callable[[object], str]) -> None:
    card = profile.load(written(GOOD))
    assert (card.key, card.name, card.compute_capability) == ("mine", "A card of mine", (8, 6))
    assert str(card.link) == "pcie4x8"


def test_whole_numbers_may_be_written_with_an_exponent(written: Callable[[object], str]) -> None:
    card = profile.load(written({**GOOD, "memory_bytes_per_second": 4e11}))
    assert card.memory_bytes_per_second == 400_000_000_000
    assert isinstance(card.memory_bytes_per_second, int)


def test_sources_may_be_left_out(written: Callable[[object], str]) -> None:
    assert profile.load(written({field: GOOD[field] for field in GOOD if field != "sources"})).sources == {}


@pytest.mark.parametrize("field", [field for field in GOOD if field != "sources"])
def test_a_missing_field_is_named(field: str, written: Callable[[object], str]) -> None:
    path = written({name: GOOD[name] for name in GOOD if name != field})
    with pytest.raises(ValueError, match=f"mine.json: field '{field}' is missing"):
        profile.load(path)


@pytest.mark.parametrize("kind", ["fp64", "fp32", "fp16", "bf16", "int8"])
def test_a_missing_rate_is_named(kind: str, written: Callable[[object], str]) -> None:
    content = copy.deepcopy(GOOD)
    del content["flops"][kind]
    with pytest.raises(ValueError, match=f"mine.json: flops: field '{kind}' is missing"):
        profile.load(written(content))


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        ("memory_bytes", -1, "memory_bytes = -1 is not accepted: a whole number from 1 to"),
        ("memory_bytes", 0, "memory_bytes = 0 is not accepted"),
        ("memory_bytes", "12GiB", "memory_bytes = '12GiB' is not accepted"),
        ("memory_bytes", 1 << 60, "memory_bytes = 1152921504606846976 is not accepted: a whole number from 1 to"),
        ("memory_bytes", 10**400, "memory_bytes = 1000"),
        ("memory_bytes", 1.5, "memory_bytes = 1.5 is not accepted"),
        ("memory_bytes", True, "memory_bytes = True is not accepted"),
        ("memory_bytes", None, "memory_bytes = None is not accepted"),
        ("memory_bytes", [1], r"memory_bytes = \[1\] is not accepted"),
        ("memory_bytes_per_second", float("nan"), "memory_bytes_per_second = nan is not accepted"),
        ("memory_bytes_per_second", float("inf"), "memory_bytes_per_second = inf is not accepted"),
        ("launch_ns", -5, "launch_ns = -5 is not accepted: a whole number from 0 to"),
        ("power_limit_mw", 10**9, "power_limit_mw = 1000000000 is not accepted"),
        ("name", "", "name = '' is not accepted: a text of 1 to 90"),
        ("name", "a\nb", r"name = 'a\\nb' is not accepted"),
        ("name", "x" * 1000, "name = 'xxxxxx"),
        ("name", 7, "name = 7 is not accepted"),
        ("compute_capability", [8], r"compute_capability = \[8\] is not accepted: two whole numbers"),
        ("compute_capability", "8.6", "compute_capability = '8.6' is not accepted"),
        ("compute_capability", [8, -1], r"compute_capability = \[8, -1\] is not accepted"),
        ("flops", 12, "flops: 12 is not accepted: an object"),
        ("flops.fp32", 0, "flops: fp32 = 0 is not accepted"),
        ("flops.fp32", float("nan"), "flops: fp32 = nan is not accepted"),
        ("flops.fp4", 1, "flops: field 'fp4' is not known: fp64, fp32, tf32, fp16, bf16, fp8, int8"),
        ("efficiency.compute", 0, "efficiency: compute = 0 is not accepted: a number above 0, up to 1"),
        ("efficiency.compute", 1.01, "efficiency: compute = 1.01 is not accepted"),
        ("efficiency.memory", float("nan"), "efficiency: memory = nan is not accepted"),
        ("efficiency.memory", "0.8", "efficiency: memory = '0.8' is not accepted"),
        ("link.width", 3, "link: width 3 is not accepted: 1, 2, 4, 8 or 16 lanes"),
        ("link.generation", 2, "link: generation 2 is not known: 3, 4 or 5"),
        ("link.speed", 2, "link: field 'speed' is not known: generation, width"),
        ("sources", ["a book"], r"sources: \['a book'\] is not accepted: an object"),
        ("sources.name", 3, "sources: name = 3 is not accepted: a text"),
        ("memory", 3, "field 'memory' is not known: name, memory_bytes"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_accepted(
    where: str, value: object, told: str, written: Callable[[object], str]
) -> None:
    content = copy.deepcopy(GOOD)
    *parts, field = where.split(".")
    inner = content
    for part in parts:
        inner = inner[part]
    inner[field] = value
    with pytest.raises(ValueError, match=rf"mine\.json: {told}"):
        profile.load(written(content))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not a JSON file"),
        (b"\xff\xfe\x00", "not a JSON file in UTF-8"),
        (b'{"name": "x",', "not a JSON file"),
        (b"[1, 2]", r"\[1, 2\] is not accepted: an object"),
        (b"[" * 200_000, "not a JSON file"),
        (b'{"name": ' + b"9" * 5000 + b"}", "mine.json"),
        (b'{"name": "a", "name": "b"}', "a field is there twice"),
        (b" " * (1 << 21), "more than 1048576 bytes"),
    ],
)
def test_a_hostile_file_is_refused(raw: bytes, told: str, written: Callable[[object], str]) -> None:
    with pytest.raises(ValueError, match=told):
        profile.load(written(raw))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json: cannot be read: No such file"):
        profile.load(str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="cannot be read"):
        profile.load(str(tmp_path / "folder.json" / ".json"))


@pytest.mark.parametrize("name", ["rtx3061", "", "../profiles/t4", "T4", "links"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not a profile: known are a100, .*, t4, .* or give the path of a .json file"
    ):
        profile.load(name)
    with pytest.raises(ValueError, match="is not a host profile: known are desktop, server"):
        profile.load_host(name)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("pcie3x4", "pcie3x4"), ("pcie3", "pcie3x16"), ("x8", "pcie4x8"), (" PCIe4x16 ", "pcie4x16"), ("x1", "pcie4x1")],
)
def test_a_link_is_read_beside_a_card(text: str, meant: str) -> None:
    assert str(profile.link(text, profile=profile.load("rtx3060"))) == meant


def test_a_links_rate_goes_with_its_lanes() -> None:
    narrow, wide = profile.link("pcie4x4"), profile.link("pcie4x16")
    assert wide.pinned == 4 * narrow.pinned == 25_000_000_000
    assert wide.pageable == narrow.pageable
    assert profile.load("h100").link.pinned > 50_000_000_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not understood: give pcie4x16, pcie4 or x4"),
        ("nvlink", "is not understood"),
        ("pcie4x16x2", "is not understood"),
        ("pcie-4x16", "is not understood"),
        ("pcie٤x16", "is not understood"),
        ("pcie4x", "is not understood"),
        ("x" * 10_000, "is not understood"),
        ("pcie2x16", "generation 2 is not known: 3, 4 or 5"),
        ("x3", "width 3 is not accepted: 1, 2, 4, 8 or 16 lanes"),
        ("pcie5x16", "is more than the card rtx3060 can: up to pcie4x16"),
    ],
)
def test_a_wrong_link_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        profile.link(text, profile=profile.load("rtx3060"))


def test_half_a_link_needs_a_card() -> None:
    with pytest.raises(ValueError, match="needs a card for what it leaves out"):
        profile.link("x4")


def test_profiles_need_no_torch() -> None:
    code = f"import runpy, sys; runpy.run_path({profile.__file__!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
