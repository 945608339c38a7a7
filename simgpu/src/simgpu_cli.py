"""The command ``simgpu``: plays the world around a simulated card, and shows the card. Imports no torch.

What it does to a card is done by the card's NVML library, so that there is one implementation.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

_ROOM = 1 << 18  # bytes; a card with all its processes is a tenth of that

_DESCRIPTION = """\
Play the world around a simulated GPU, and look at it.

All processes that use a card of the same name share it: its memory, its link, and its NVML face."""

_EPILOG = """\
examples:
  simgpu status                       the card, its memory, its link, who is on it
  simgpu squeeze 3GiB                 a stranger takes 3 GiB of the card's memory; again, and it is 6
  simgpu link x4                      the card sits in a slot with four lanes from now on
  simgpu release; simgpu link reset   everything as it was
  OPTIMEM_NVML_LIBRARY=$(simgpu nvml) optimemctl probe

environment:
  SIMGPU_CARD      the card's name; the profile's name by default
  SIMGPU_PROFILE   what the card is: a built-in profile (simgpu profiles) or a .json file; rtx3060 by default
  SIMGPU_CAPACITY  its memory, where that is not the profile's; 6GiB, say"""


class Refused(Exception):
    """What was asked cannot be done; holds the text for the user and the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 2 for bad input, 130 for Ctrl-C, 1 for all else that went wrong."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        print("simgpu: interrupted", file=sys.stderr)
        return 130


def _run(words: list[str]) -> int:
    if words[:1] == ["check"]:  # its options are its own, and it imports torch
        return int(importlib.import_module("simgpu.check").main(words[1:]) or 0)
    arguments = _parser().parse_args(words)
    try:
        arguments.run(arguments)
    except Refused as error:
        print(error, file=sys.stderr)
        return error.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader had enough: no second error at exit
    return 0


def _parser() -> argparse.ArgumentParser:
    shape: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="simgpu", description=_DESCRIPTION, epilog=_EPILOG, **shape)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, help: str, more: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.\n{more}", **shape)
        made.set_defaults(run=run)
        return made

    def on_card(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("--card", metavar="NAME", help="the card's name; default: $SIMGPU_CARD, or the profile's")
        made.add_argument("--profile", metavar="NAME", help="what it is if nobody uses it; default: $SIMGPU_PROFILE")
        return made

    more = "\nThe memory is gone for everybody until `simgpu release`, even where more is taken than was free."
    squeeze = on_card(command("squeeze", _squeeze, "let a stranger take SIZE more of the card's memory", more))
    squeeze.add_argument("size", metavar="SIZE", help="bytes, or with a unit: 3GiB, 500MB")
    on_card(command("release", _release, "let the stranger leave: all that was squeezed is free again"))
    more = "\nLINK is lanes (x4), a generation (gen3), both (pcie3x8), or reset; what is not said stays as it is."
    link = on_card(command("link", _link, "make the card's link slower, or reset it", more))
    link.add_argument("link", metavar="LINK", help="x4, gen3, pcie3x8 or reset")
    status = on_card(command("status", _status, "show the card, its memory, its link and the processes on it"))
    status.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    command("profiles", _profiles, "list the cards that are built in")
    command("nvml", _nvml, "print the path of the card's NVML library", "\nFor OPTIMEM_NVML_LIBRARY, or LD_PRELOAD.")
    commands.add_parser("check", help="check the simulated card itself (simgpu check --help)", add_help=False)
    return parser


def _squeeze(arguments: argparse.Namespace) -> None:
    _ask("simgpuWorldSqueeze", *_which(arguments), _text(arguments.size))


def _release(arguments: argparse.Namespace) -> None:
    _ask("simgpuWorldRelease", *_which(arguments))


def _link(arguments: argparse.Namespace) -> None:
    _ask("simgpuWorldLink", *_which(arguments), _text(arguments.link))


def _status(arguments: argparse.Namespace) -> None:
    card = json.loads(_ask("simgpuWorldStatus", *_which(arguments)))
    if arguments.json:
        print(json.dumps(card, indent=2))
        return
    total, used, free, squeezed = (_size(card[f"{kind}_bytes"]) for kind in ("total", "used", "free", "squeezed"))
    stranger = f", {squeezed} of it squeezed" if card["squeezed_bytes"] else ""
    print(f"card     {card['card']}: {card['name']} ({card['uuid']})" + (", nobody uses it" if card["idle"] else ""))
    print(f"memory   {total}, {used} taken{stranger}, {free} free")
    most = "" if card["link"] == card["max_link"] else f"; at most {_lanes(card['max_link'])}"
    print(f"link     {_lanes(card['link'])}{most}")
    for process in card["processes"]:
        print(f"process  {process['pid']}: {_size(process['bytes'])}")


def _profiles(arguments: argparse.Namespace) -> None:
    for profile in json.loads(_ask("simgpuWorldProfiles")):
        memory = _size(profile["memory_bytes"])
        print(f"{profile['profile']:<12} {profile['name']:<32} {memory:>10}  {_lanes(profile['link'])}")


def _nvml(arguments: argparse.Namespace) -> None:
    print(library())


def library() -> Path:
    """Where the NVML library lies, in the installed package; found without importing it."""
    for folder in _package():
        path = Path(folder) / "lib" / "libnvidia-ml.so.1"
        if path.exists():
            return path
    raise Refused("simgpu: the NVML library is not there; install it: pip install --no-build-isolation ./simgpu", 1)


def _package() -> list[str]:
    spec = importlib.util.find_spec("simgpu")
    return list(spec.submodule_search_locations or []) if spec else []


def _which(arguments: argparse.Namespace) -> tuple[bytes | None, bytes | None]:
    return _text(arguments.card), _text(arguments.profile)


def _text(word: str | None) -> bytes | None:
    return None if word is None else os.fsencode(word)


def _ask(function: str, *words: bytes | None) -> str:
    """Calls one of the library's functions that take texts and answer with one."""
    answer = ctypes.create_string_buffer(_ROOM)
    code = getattr(ctypes.CDLL(str(library())), function)(*words, answer, ctypes.c_uint(_ROOM))
    text = answer.value.decode("utf-8", errors="replace")
    if code:
        raise Refused(text, code)
    return text


def _size(count: int) -> str:
    value, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{count} bytes" if units[0] == "bytes" else f"{value:.2f} {units[0]}"


def _lanes(link: dict[str, int]) -> str:
    return f"PCIe {link['generation']} x{link['width']}"


if __name__ == "__main__":
    sys.exit(main())
