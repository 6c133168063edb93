# SPDX-License-Identifier: Apache-2.0
"""Results on disk and as text: JSON with all that the figures depend on, a plot beside it, tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.machine import ROOT

RESULTS = ROOT / "bench" / "results"
_DPI = 130


@dataclass(frozen=True)
class Table:
    """Rows of texts under headings. `note` says what the headings leave open."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def markdown(table: Table) -> str:
    """As README.md has its tables, aligned: figures right, all else left.

    Raises ValueError for a row that does not fit the headings.
    """
    lines = [table.headings, *table.rows]
    if any(len(line) != len(table.headings) for line in lines):
        raise ValueError(f"expected rows of {len(table.headings)} texts, got {[len(row) for row in table.rows]}")
    columns = [_aligned(heading, cells) for heading, *cells in zip(*lines, strict=True)]
    written = [f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True)]
    written.insert(1, "|" + "|".join("-" * (len(column[0]) + 2) for column in columns) + "|")
    return "\n".join([*written, "", table.note] if table.note else written)


def _aligned(heading: str, cells: Sequence[str]) -> list[str]:
    texts = [heading, *cells]
    width = max(map(len, texts))
    figures = all(cell[0].isdigit() for cell in cells if cell)
    return [text.rjust(width) if figures else text.ljust(width) for text in texts]


def write_json(name: str, facts: Mapping[str, Any], figures: Sequence[Any]) -> Path:
    """Write bench/results/<name>.json: `facts` of the run, then its figures, which are dataclasses."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"bench": name, **facts, "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def save_plot(name: str, figure: Figure) -> Path:
    """Write bench/results/<name>.png."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.png"
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
    return path


def grouped_bars(axes: Axes, names: Sequence[str], series: Mapping[str, Sequence[float]], label: str) -> None:
    """A group of bars for each of `names`, one of each series; `label` formats what is written on them."""
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        offset = (number - (len(series) - 1) / 2) * width
        bars = axes.bar([place + offset for place in range(len(names))], values, width, label=name)
        axes.bar_label(bars, fmt=label, fontsize=7)
    axes.set_xticks(range(len(names)), names)
    axes.margins(y=0.15)
    axes.legend()


def short(value: float) -> str:
    """Three digits, or all that a large number has before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
