"""Periods of large models on small cards, beside the plan's prediction and the bound.

    python bench/periods.py                                   # the whole table, some 25 minutes
    python bench/periods.py --cards rtx4090 --models gpt2_medium --shares 25,50 --json

Each cell is one `optimemctl run` of a model of bench/models.py in page mode, with that share of its weights on a simulated
card. Periods are virtual times of that card: the same in every run, and no GPU's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
MODELS = ("resnet101", "vit_large", "gpt2_medium", "flux_like")
CARDS = ("rtx3060", "rtx4090")
SHARES = (25, 50, 75)
FORWARDS = 8


@dataclass(frozen=True)
class Cell:
    """One run. Times in ns; `off` is how far the period is from the plan's, `gap` how far above the bound, as shares."""

    card: str
    model: str
    share: int
    period_ns: int
    predicted_ns: int
    bound_ns: int
    plain_ns: int
    equal: bool
    misses: int

    @property
    def off(self) -> float:
        return self.period_ns / self.predicted_ns - 1

    @property
    def gap(self) -> float:
        return self.period_ns / self.bound_ns - 1


def run(card: str, model: str, share: int) -> Cell:
    """Run one cell; raises CalledProcessError with the run's own words on stderr."""
    command = [str(ROOT / "bin" / "optimemctl"), "run", f"{ROOT / 'bench' / 'models.py'}:{model}", "--json"]
    command += ["--device", f"sim:{card}", "--vram", f"{share}%", "--forwards", str(FORWARDS)]
    environment = os.environ | {"OPTIMEM_PYTHON": sys.executable}
    told = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    return Cell(
        card,
        model,
        share,
        *(told[name] for name in ("period_ns", "predicted_ns", "bound_ns", "plain_period_ns", "equal", "misses")),
    )


HEAD = """| card | model | weights on it | plain | period | plan | off | bound | gap | bits |
|---|---|--:|--:|--:|--:|--:|--:|--:|---|"""


def row(c: Cell) -> str:
    """Return a row of the table, in Markdown."""
    plain, period, plan, bound = (f"{ns / 1e6:.2f} ms" for ns in (c.plain_ns, c.period_ns, c.predicted_ns, c.bound_ns))
    bits = "equal" if c.equal and not c.misses else f"equal {c.equal}, {c.misses} misses"
    where = f"| {c.card} | {c.model} | {c.share} % "
    return where + f"| {plain} | {period} | {plan} | {c.off:+.1%} | {bound} | {c.gap:.1%} | {bits} |"


def summary(cells: list[Cell]) -> str:
    """Return the lines under the table."""
    return (
        f"\ngap: mean {mean(c.gap for c in cells):.1%}, greatest {max(c.gap for c in cells):.1%};\n"
        f"off the plan: at most {max(abs(c.off) for c in cells):.1%}. All times are simulated."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", default=",".join(CARDS), help="profiles of cards, with commas")
    parser.add_argument("--models", default=",".join(MODELS), help="factories of bench/models.py, with commas")
    parser.add_argument("--shares", default=",".join(map(str, SHARES)), help="percentages of the weights, with commas")
    parser.add_argument("--json", action="store_true", help="print the cells as JSON")
    wished = parser.parse_args()
    wanted = product(wished.cards.split(","), wished.models.split(","), map(int, wished.shares.split(",")))
    cells: list[Cell] = []
    if not wished.json:
        print(HEAD)
    for card, model, share in wanted:
        print(f"{model} on {card}, {share} % ...", file=sys.stderr)
        cells.append(run(card, model, share))
        if not wished.json:
            print(row(cells[-1]), flush=True)
    print(json.dumps([asdict(cell) for cell in cells], indent=1) if wished.json else summary(cells))


if __name__ == "__main__":
    main()
