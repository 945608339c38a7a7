"""The worker's table of placements names the same ones as the planner's, and no others are followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimem import ControllerError
from optimem.residency.placements import _BY_NAME, placement_of

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schema" / "answer.json"


def test_the_planner_has_the_same_placements() -> None:
    found = json.loads(SCHEMA.read_text())
    named = next(iter(enums(found)))
    assert set(named) == set(_BY_NAME)


def enums(schema: object) -> list[list[str]]:
    """Return the values of every property that is called placement."""
    if isinstance(schema, list):
        return [found for item in schema for found in enums(item)]
    if not isinstance(schema, dict):
        return []
    own = schema.get("placement", {})
    here = [own["enum"]] if isinstance(own, dict) and "enum" in own else []
    return here + [found for item in schema.values() for found in enums(item)]


def test_a_placement_that_is_not_known_is_named() -> None:
    with pytest.raises(ControllerError, match=r"'idle', and this worker knows resident, streamed, cpu, unread"):
        placement_of("idle")


@pytest.mark.parametrize("name", sorted(_BY_NAME))
def test_a_page_is_in_one_place(name: str) -> None:
    placement = placement_of(name)
    assert placement.resident + placement.streamed + placement.on_cpu + (not placement.read) == 1
    assert placement.moves == (placement.resident or placement.streamed)
