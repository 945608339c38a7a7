"""The command ``simgpu``: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from neighbour import Neighbour, World, library, world

import simgpu_cli

GIB = 1 << 30


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("SIMGPU_PROFILE", "SIMGPU_CAPACITY", "SIMGPU_LINK"):
        monkeypatch.delenv(name, raising=False)
    with world() as made:
        monkeypatch.setenv("SIMGPU_CARD", made.name)
        yield made


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert simgpu_cli.main(list(words)) == code
    out, err = capsys.readouterr()
    return err if code else out


def test_status_shows_who_holds_what(card: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nobody uses it" in said(capsys, "status")
    with Neighbour(card.name) as one:
        one.ask("reserve", 2 * GIB)
        said(capsys, "squeeze", "3GiB")
        said(capsys, "link", "x4")
        text = said(capsys, "status")
        assert "12.00 GiB, 5.00 GiB taken, 3.00 GiB of it squeezed, 7.00 GiB free" in text
        assert "PCIe 4 x4; at most PCIe 4 x16" in text
        assert f"process  {one.pid}: 2.00 GiB" in text
        status = json.loads(said(capsys, "status", "--json"))
        assert (status["squeezed_bytes"], status["free_bytes"]) == (3 * GIB, 7 * GIB)
        said(capsys, "release")
        said(capsys, "link", "reset")
        one.leave()
    assert not card.state.exists()


def test_options_say_which_card_and_what_it_is(card: World, capsys: pytest.CaptureFixture[str]) -> None:
    status = json.loads(said(capsys, "status", "--json", "--card", f"{card.name}-2", "--profile", "t4"))
    assert (status["card"], status["profile"], status["total_bytes"]) == (f"{card.name}-2", "t4", 16 * GIB)


def test_the_link_of_the_environment_is_the_most_of_an_idle_card(
    card: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGPU_LINK", "x8")
    assert "PCIe 4 x8\n" in said(capsys, "status")
    monkeypatch.setenv("SIMGPU_LINK", "pcie5")
    assert 'SIMGPU_LINK="pcie5" is more than the card rtx3060 can' in said(capsys, "status", code=2)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["squeeze", "lots"], '"lots" is not a size: give bytes, or a number with KiB'),
        (["link", "x3"], "cannot be PCIe 4 x3; it is at most PCIe 4 x16"),
        (["status", "--profile", "rtx9999"], "known are a100"),
        (["squeeze", "1GiB", "--profile", "mine.json"], "nobody uses the card"),
    ],
)
def test_bad_input_is_named_and_ends_with_2(
    card: World, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    assert why in said(capsys, *words, code=2)
    assert not card.state.exists()


def test_a_fault_ends_with_1(card: World, capsys: pytest.CaptureFixture[str]) -> None:
    card.state.write_text("garbage")
    card.state.chmod(0o600)
    assert "holds no simulated card's state" in said(capsys, "squeeze", "1GiB", code=1)


def test_profiles_and_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    assert "NVIDIA GeForce RTX 3060" in said(capsys, "profiles")
    assert Path(said(capsys, "nvml").strip()).name == "libnvidia-ml.so.1"


def test_the_table_in_the_library_is_that_of_the_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    files = (Path(library()).parent.parent / "profiles").glob("*.json")
    listed = {line.split()[0] for line in said(capsys, "profiles").splitlines()}
    assert listed == {file.stem for file in files}


def test_the_command_imports_no_torch() -> None:
    code = "import sys, simgpu_cli; simgpu_cli.main(['profiles']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("simgpu.check.main", interrupted)
    assert simgpu_cli.main(["check"]) == 130
    assert capsys.readouterr().err == "simgpu: interrupted\n"
