# SPDX-License-Identifier: Apache-2.0
"""The model card, for programs and for people."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.training.sample_version import make_card, make_contents
from training.publish.model_card import to_json, to_markdown

PROOFS = make_contents(b"").proofs


def test_json_has_everything() -> None:
    document = json.loads(to_json(make_card(), PROOFS))
    assert document["format"] == 1
    assert document["metrics"] == {"auc": 0.91234}
    assert document["baseline_metrics"] == {"auc": 0.5}
    assert document["data"]["sha256"] == "cd" * 32
    assert document["data"]["holdout_rows"] == 20
    assert document["origin"]["packages"] == {"numpy": "2.0"}
    assert document["parameters"] == {"factor": 2}
    assert document["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 2], "meaning": "numbers"}
    assert document["parity"][0]["batch_rows"] == [1, 2, 3]
    assert document["parity"][0]["tolerance"] == {"absolute": 1e-5, "relative": 1e-4}


def test_a_metric_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        to_json(replace(make_card(), metrics={"auc": float("nan")}), PROOFS)


def test_markdown() -> None:
    text = to_markdown(make_card(), PROOFS).decode()
    assert text.startswith("# sample\n\nDoubles a number.\n")
    assert "| metric on the hold-out | model | a coin |\n| --- | --- | --- |\n| auc | 0.9123 | 0.5000 |\n" in text
    assert "| input | `word` | BYTES | [-1, 1] | a \\| b |" in text
    assert "| model.onnx | 1, 2, 3 | 1e-05 + 0.0001 relative | y: 1e-07 |" in text
    assert f"| sha256 | {'cd' * 32} |" in text
    assert "| numpy | 2.0 |" in text


def test_markdown_of_a_model_as_packaged() -> None:
    card = replace(make_card(), metrics={}, data=None, parameters={})
    text = to_markdown(card, PROOFS).decode()
    assert "metric" not in text
    assert "## Data" not in text
    assert "Knows nothing else." in text
