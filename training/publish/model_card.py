# SPDX-License-Identifier: Apache-2.0
"""The model card of a version: what the model is for, what it was trained on, how good it is, and how it was made.

Written as model_card.json for programs and MODEL_CARD.md for people. Depends on no version control.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from training.publish.parity import ParityProof

CARD_FILE = "model_card.json"
RENDERED_CARD_FILE = "MODEL_CARD.md"

#: A JSON scalar, as parameters have.
Parameter = str | int | float | bool


@dataclass(frozen=True)
class Tensor:
    """An input or output. `datatype` is the KServe v2 protocol's name; -1 in `shape` is a dimension of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    meaning: str


@dataclass(frozen=True)
class DataSource:
    """Where the data came from. `sha256` is the digest of the files read, in the order of `files`."""

    name: str
    package: str
    licence: str
    files: tuple[str, ...]
    sha256: str
    training_rows: int
    holdout_rows: int
    split: str


@dataclass(frozen=True)
class Origin:
    """What made the version. Two versions of equal origin were made from equal code, packages and options."""

    script: str
    source_sha256: str
    packages: Mapping[str, str]
    options: Mapping[str, Parameter]


@dataclass(frozen=True)
class ModelCard:
    """`metrics` and `baselines` are measured on the hold-out and have the same names; `data` is None for a model that
    was published as its package ships it."""

    model: str
    summary: str
    licence: str
    origin: Origin
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metrics: Mapping[str, float]
    limitations: str
    baseline: str = ""
    baseline_metrics: Mapping[str, float] = field(default_factory=dict)
    data: DataSource | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def to_json(card: ModelCard, proofs: Sequence[ParityProof]) -> bytes:
    """The document model_card.json."""
    document = {"format": 1, **asdict(card), "parity": [asdict(proof) for proof in proofs]}
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def to_markdown(card: ModelCard, proofs: Sequence[ParityProof]) -> bytes:
    """The document MODEL_CARD.md."""
    parts = [f"# {card.model}", card.summary, "## Inputs and outputs"]
    parts.append(
        _table(
            ("", "name", "datatype", "shape", "meaning"),
            [
                (kind, f"`{tensor.name}`", tensor.datatype, str(list(tensor.shape)), tensor.meaning)
                for kind, tensors in (("input", card.inputs), ("output", card.outputs))
                for tensor in tensors
            ],
        )
    )
    parts.append("## Quality")
    if card.metrics:
        rows = [
            (name, f"{value:.4f}", _number(card.baseline_metrics.get(name))) for name, value in card.metrics.items()
        ]
        parts.append(_table(("metric on the hold-out", "model", card.baseline or "baseline"), rows))
    parts.append(card.limitations)
    if card.data is not None:
        parts += ["## Data", _table(("", ""), [(key, str(value)) for key, value in asdict(card.data).items()])]
    if card.parameters:
        parts += ["## Parameters", _table(("", ""), [(name, str(value)) for name, value in card.parameters.items()])]
    parts += [
        "## Parity of the exported files",
        _table(("file", "rows", "tolerance", "largest error"), map(_proof, proofs)),
    ]
    origin = [("script", card.origin.script), ("sha256 of its source", card.origin.source_sha256)]
    origin += [(name, str(value)) for name, value in card.origin.options.items()]
    origin += [("licence of the model", card.licence), *card.origin.packages.items()]
    parts += ["## Origin", _table(("", ""), origin)]
    return ("\n\n".join(parts) + "\n").encode()


def _proof(proof: ParityProof) -> tuple[str, str, str, str]:
    errors = ", ".join(f"{name}: {error:.3g}" for name, error in proof.largest_error.items())
    tolerance = f"{proof.tolerance.absolute:g} + {proof.tolerance.relative:g} relative"
    return proof.file, ", ".join(map(str, proof.batch_rows)), tolerance, errors


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
