"""The rooms of the worker's package keep to the floor plan, and all of them are shipped."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from setuptools import find_packages

import optimem
from optimem.rooms import MAY, NEVER

PACKAGE = Path(str(optimem.__file__)).parent
FILES = sorted(PACKAGE.glob("*/*.py"))


def imported(source: str, room: str) -> set[str]:
    """Return the modules that a file of `room` imports, ours by their names in the package: "card.device", "errors"."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("optimem.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = {0: (node.module or "").removeprefix("optimem").strip("."), 1: room, 2: ""}[node.level]
            if node.level and node.module:
                base = f"{base}.{node.module}".strip(".")
            whole = node.module is None or node.module == "optimem"
            found |= {f"{base}.{alias.name}".strip(".") for alias in node.names} if whole else {base}
    return found


def violations(source: str, room: str) -> list[str]:
    tops = {name.partition(".")[0] for name in imported(source, room)}
    rooms = tops & MAY.keys() - {room} - MAY[room]
    return sorted(f"{room} imports {name}" for name in rooms | tops & NEVER.get(room, set()))


def test_every_folder_is_a_room_with_a_promise() -> None:
    assert {file.parent.name for file in FILES} == MAY.keys()
    for room in MAY:
        assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())), room


def test_every_room_keeps_to_the_floor_plan() -> None:
    assert len(FILES) > 50
    found = [f"{file.name}: {what}" for file in FILES for what in violations(file.read_text(), file.parent.name)]
    assert found == []


def test_no_rooms_import_each_other() -> None:
    assert not [(above, below) for above in MAY for below in MAY[above] if above in MAY[below]]


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("model", "from ..card.device import Device"),
        ("model", "from .. import card"),
        ("data", "def f():\n    from ..model import units"),
        ("residency", "from ..life.attachment import Attachment"),
        ("residency", "import optimem.life.attachment"),
        ("residency", "from optimem.learning import meter"),
        ("card", "from optimem import data"),
        ("wire", "import torch"),
        ("wire", "from torch import nn"),
    ],
)
def test_a_forbidden_import_is_found(room: str, source: str) -> None:
    assert len(violations(source, room)) == 1


def test_an_allowed_import_is_not_accused() -> None:
    assert (
        violations(
            "import torch\nfrom ..errors import BadInput\nfrom ..card import device\nfrom . import sides", "residency"
        )
        == []
    )


def test_every_room_is_shipped() -> None:
    shipped = set(find_packages(str(PACKAGE.parent), include=["optimem*"]))
    assert shipped == {"optimem", *(f"optimem.{room}" for room in MAY)}


def writers(source: str) -> list[int]:
    """Return the lines in which a tensor's data is written."""
    targets = [
        target
        for node in ast.walk(ast.parse(source))
        for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
    ]
    return [target.lineno for target in targets if isinstance(target, ast.Attribute) and target.attr == "data"]


def test_only_weights_write_a_parameters_data() -> None:
    found = {str(file.relative_to(PACKAGE)) for file in FILES if writers(file.read_text())}
    assert found == {"model/weights.py"}


def test_a_write_to_data_is_found() -> None:
    assert writers("p.data = x\nq.data += 1\nr.date = 2") == [1, 2]
