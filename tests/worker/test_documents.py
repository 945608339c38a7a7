"""The documents name files and names that exist, and their tables say what the tables in the code say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from optimem.life.curriculum import TABLE
from optimem.life.state import Outcome
from optimem.rooms import MAY

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "worker" / "optimem"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
MADE = {"bin", "build"}  # folders that are made, not kept

_FILE = re.compile(r"(?<![\w./$~-])[\w.-]+(?:/[\w.-]+)+\.(?:cpp|css|go|h|json|md|py|svg|toml|yml)\b")
_QUOTED = re.compile(r"`([\w.-]+(?:/[\w.-]+)+)/?`")
_NAMED = re.compile(r"`(\w+(?:\.\w+)*)`\s+\(`([\w./-]+\.(?:go|py))`\)")


def found(name: str, page: Path) -> Path | None:
    """Return the file or folder that `name` in `page` means: from the root, from the worker's package, or from the page."""
    return next((base / name for base in (ROOT, PACKAGE, page.parent) if (base / name).exists()), None)


def missing(text: str, page: Path) -> list[str]:
    """Return the files and folders that `text` names and that do not exist, and names that their files do not define."""
    tops = {folder.name for base in (ROOT, PACKAGE) for folder in base.iterdir() if folder.is_dir()} - MADE
    quoted = {name for name in _QUOTED.findall(text) if name.partition("/")[0] in tops}
    files = sorted(name for name in quoted | set(_FILE.findall(text)) if found(name, page) is None)
    return files + [f"{name} ({file})" for name, file in _NAMED.findall(text) if not defines(found(file, page), name)]


def defines(file: Path | None, name: str) -> bool:
    """Tell whether `file` defines every part of the dotted `name`, in Python or in Go."""
    source = file.read_text() if file is not None else ""
    begins = r"^\s*(?:class|def|type|var|const|func(?: \(.*?\))?) "
    return all(re.search(rf"{begins}{part}\b|^\s*{part}\s*[:=(]", source, re.MULTILINE) for part in name.split("."))


def dangling(source: str) -> list[str]:
    """Return the documents that `source` points to and that do not exist, or have no heading of the title that it gives."""
    pages = set(re.findall(r"\bdocs/[\w/-]+\.(?:md|json|svg)\b", source))
    titled = re.findall(r'\b(docs/[\w/-]+\.md),\s+"([^"]+)"', source)
    lost = sorted(page for page in pages if not (ROOT / page).is_file())
    return lost + [title for page, title in titled if f"# {title}\n" not in (ROOT / page).read_text()]


def table(text: str, title: str) -> list[list[str]]:
    """Return the rows of the table under the heading `title`, cells without backticks."""
    part = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows]


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_everything_that_a_document_names_exists(page: Path) -> None:
    assert missing(page.read_text(), page) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("see worker/optimem/card/cart.py", ["worker/optimem/card/cart.py"]),
        ("see `residency/masters.py`", ["residency/masters.py"]),
        ("[JSON](schema/manifests.json)", ["schema/manifests.json"]),
        ("the package `planner/serch`", ["planner/serch"]),
        ("`Pager.fetch`\n(`residency/pager.py`)", ["Pager.fetch (residency/pager.py)"]),
        ("`Bild` (`planner/search/build.go`)", ["Bild (planner/search/build.go)"]),
        ("`device` (`card/names.py`)", ["device (card/names.py)"]),
        ("`Card` (`card/cart.py`)", ["card/cart.py", "Card (card/cart.py)"]),
        ("`Build` (`planner/search/build.go`), `Pager.acquire` (`residency/pager.py`), [JSON](schema/manifest.json)", []),
        ("`bin/optimemctl`, a/b, `text/html`, ~/.cache/x/y.json, file.py:factory", []),
    ],
)
def test_a_wrong_name_is_found(text: str, names: list[str]) -> None:
    assert missing(text, ROOT / "docs" / "architecture.md") == names


def test_the_documents_that_sources_point_to_exist() -> None:
    go = [
        file
        for top in ("bindings", "cmd", "controller", "internal", "ipc", "planner")
        for file in ROOT.glob(f"{top}/**/*.go")
    ]
    sources = [file for file in (*go, *PACKAGE.glob("**/*.py"), *ROOT.glob("bench/*.py")) if dangling(file.read_text())]
    assert sources == []


@pytest.mark.parametrize(
    ("source", "lost"),
    [
        ("(docs/adr/0099-nothing.md)", ["docs/adr/0099-nothing.md"]),
        ('(docs/architecture.md, "What is kept for ever")', ["What is kept for ever"]),
        ('(docs/architecture.md,\n"What is kept between runs", docs/schema/answer.json)', []),
    ],
)
def test_a_wrong_pointer_is_found(source: str, lost: list[str]) -> None:
    assert dangling(source) == lost


def test_the_rooms_are_those_of_the_code() -> None:
    told: dict[str, set[str]] = {}
    below: set[str] = set()
    for room, _, may in table(ARCHITECTURE, "The rooms"):
        words = set(re.findall(r"\w+", may)) & MAY.keys()
        below = told[room] = below | words if may.startswith("those") else words
    assert told == MAY


def test_the_states_and_outcomes_are_those_of_the_code() -> None:
    rows = [
        [row.state.value, "any" if row.outcome is Outcome else row.outcome.__name__, ", ".join(row.given), row.then.value]
        for row in TABLE
    ]
    assert table(ARCHITECTURE, "States and outcomes") == rows
