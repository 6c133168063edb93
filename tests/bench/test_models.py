# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bench.client import Counts, WrongAnswerError, mean_batch
from bench.models import MissingModelError, build_mlp, find_sample


def test_the_mlp_is_the_same_each_time_and_runs_any_number_of_rows() -> None:
    content = build_mlp()
    assert content == build_mlp()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    rows = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    (together,) = session.run(["OUTPUT0"], {"INPUT0": rows})
    assert together.shape == (5, 1)
    assert len(np.unique(together)) == 5
    for row, answer in zip(rows, together, strict=True):
        (alone,) = session.run(["OUTPUT0"], {"INPUT0": row[None]})
        np.testing.assert_allclose(alone[0], answer, rtol=1e-4, atol=1e-6)


def test_the_newest_version_is_found_and_its_examples_repeat(tmp_path: Path) -> None:
    for version in ("2", "10"):
        (tmp_path / "m" / version).mkdir(parents=True)
        examples = {"input.x": np.array([[1.0], [2.0]]), "output.y": np.array([[3.0], [4.0]])}
        np.savez(tmp_path / "m" / version / "expected.npz", allow_pickle=False, **examples)
    sample = find_sample(tmp_path, "m")
    assert sample.directory.name == "10"
    assert sample.rows(3)["x"].tolist() == [[1.0], [2.0], [1.0]]
    assert sample.outputs["y"].tolist() == [[3.0], [4.0]]


def test_a_model_that_is_not_published_is_an_error_that_says_how(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="make train"):
        find_sample(tmp_path, "m")


def test_mean_batch_counts_what_lies_between() -> None:
    assert mean_batch(Counts(100, 10, 1), Counts(180, 20, 1)) == 8


@pytest.mark.parametrize("after", [Counts(180, 20, 2), Counts(100, 10, 1)])
def test_a_run_that_failed_or_did_nothing_has_no_mean_batch(after: Counts) -> None:
    with pytest.raises(WrongAnswerError):
        mean_batch(Counts(100, 10, 1), after)
