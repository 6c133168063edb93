# SPDX-License-Identifier: Apache-2.0
"""The last step of every script: prove, document and publish a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.catalogue import SCRIPTS
from training.provenance import Options, origin_of
from training.publish import (
    Arrays,
    DataSource,
    Examples,
    ModelCard,
    OnnxModel,
    Predict,
    PublishedVersion,
    Tolerance,
    VersionContents,
    prove_parity,
    publish_version,
)
from training.publish.model_card import Parameter

#: How many rows expected.npz holds, unless a script's rows are large.
EXAMPLE_ROWS = 8


@dataclass(frozen=True)
class Export:
    """Another file that holds the same model, in another format, and how to run it."""

    file: str
    content: bytes
    predict: Predict


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model. `reference` is the framework's own prediction.

    `inputs` are the rows for the proof of parity; `meanings` explains each input and output by name.
    """

    model: str
    summary: str
    licence: str
    onnx: bytes
    reference: Predict
    inputs: Arrays
    tolerance: Tolerance
    meanings: Mapping[str, str]
    metrics: Mapping[str, float]
    limitations: str
    baseline: str = ""
    baseline_metrics: Mapping[str, float] = field(default_factory=dict)
    data: DataSource | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    other_exports: Sequence[Export] = ()
    other_files: Mapping[str, bytes | Path] = field(default_factory=dict)
    example_rows: int = EXAMPLE_ROWS
    config: str | None = None


def release(script: str, options: Options, candidate: Candidate) -> PublishedVersion:
    """Publish as the next version. A configuration replaces the one that an earlier run of the script wrote.

    Raises ParityError, with the numbers, if an exported file does not predict what `reference` predicts.
    """
    onnx = OnnxModel(candidate.onnx)
    exports = [Export("model.onnx", candidate.onnx, onnx.predict), *candidate.other_exports]
    proofs = [
        prove_parity(export.file, export.predict, candidate.reference, candidate.inputs, candidate.tolerance)
        for export in exports
    ]
    card = ModelCard(
        model=candidate.model,
        summary=candidate.summary,
        licence=candidate.licence,
        origin=origin_of(SCRIPTS[script], options),
        inputs=onnx.inputs(candidate.meanings),
        outputs=onnx.outputs(candidate.meanings),
        metrics=candidate.metrics,
        baseline=candidate.baseline,
        baseline_metrics=candidate.baseline_metrics,
        limitations=candidate.limitations,
        data=candidate.data,
        parameters=candidate.parameters,
    )
    rows = {name: array[: candidate.example_rows] for name, array in candidate.inputs.items()}
    contents = VersionContents(
        files={**candidate.other_files, **{export.file: export.content for export in exports}},
        card=card,
        examples=Examples(rows, candidate.reference(rows)),
        proofs=proofs,
    )
    return publish_version(options.repository, candidate.model, contents, config=candidate.config, replace_config=True)
