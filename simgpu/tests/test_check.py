"""The comparison with published times: its figures are complete, and it runs."""

from __future__ import annotations

import io
import json

import pytest

from simgpu import check, profile

ROWS = check.published()


def test_every_line_has_a_workload_and_the_other_way_round() -> None:
    assert [row.id for row in ROWS] == list(check.WORKLOADS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_line_names_hardware_that_is_known_and_its_source(row: check.Published) -> None:
    profile.link(row.link, profile=profile.load(row.card))
    assert row.host in profile.host_names()
    assert row.published > 0
    assert row.unit.startswith("ms per ")
    assert row.bound in ("compute", "memory", "link", "host")
    assert len(row.source) > 40


def test_the_lines_are_spread_over_what_work_waits_for() -> None:
    bounds = [row.bound for row in ROWS]
    assert all(bounds.count(bound) >= 3 for bound in ("compute", "memory", "link"))


def test_the_table_says_ratio_and_where_it_is_blind() -> None:
    slow, broken = check.Outcome(ROWS[0], 2 * ROWS[0].published), check.Outcome(ROWS[1], problem="no such thing")
    text = io.StringIO()
    check.write_table([slow, broken], text)
    lines = text.getvalue()
    assert "2.00" in lines
    assert "could not be run: no such thing" in lines
    assert check.BLIND
    assert all(name in lines for name, _ in check.BLIND)


def test_json_says_the_same() -> None:
    text = io.StringIO()
    check.write_json([check.Outcome(ROWS[0], 1.0), check.Outcome(ROWS[1], problem="no such thing")], text)
    results = json.loads(text.getvalue())["results"]
    assert results[0]["ratio"] == 1.0 / ROWS[0].published
    assert results[0]["problem"] is None
    assert (results[1]["simulated"], results[1]["ratio"], results[1]["problem"]) == (None, None, "no such thing")


def test_an_unknown_line_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        check.main(["--only", "resnet51"])
    assert "resnet50-t4-fp32" in capsys.readouterr().err


def test_one_line_runs_and_twice_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--json", "--only", "resnet50-v100-one"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert 0.5 < first["results"][0]["simulated"] < 50
    assert check.main(["--json", "--only", "resnet50-v100-one"]) == 0
    assert json.loads(capsys.readouterr().out) == first
