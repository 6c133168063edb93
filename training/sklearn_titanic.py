# SPDX-License-Identifier: Apache-2.0
"""A scikit-learn pipeline with text and number inputs, each under its own name: who survived the Titanic?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from training.command import Reporter, main
from training.data import describe_data, numbers, package_file, random_split, read_columns
from training.export import with_batch_dimension
from training.provenance import Options
from training.publish import Arrays, PublishedVersion, Tolerance
from training.release import Candidate, release
from training.tabular import OUTPUT_MEANINGS, binary_metrics, two_class_outputs

#: Input of the model -> (column of the data, meaning).
TEXT_INPUTS = {
    "sex": ("Sex", "female or male"),
    "title": ("Name", "Mr, Mrs, Miss, Master, Dr, Rev, ...; empty if unknown"),
    "embarked": ("Embarked", "port: C, Q or S; empty if unknown"),
    "deck": ("Cabin", "letter of the cabin's deck; empty if unknown"),
}
NUMBER_INPUTS = {
    "passenger_class": ("Pclass", "1, 2 or 3"),
    "age": ("Age", "years; NaN if unknown"),
    "siblings_spouses": ("SibSp", "how many of them aboard"),
    "parents_children": ("Parch", "how many of them aboard"),
    "fare": ("Fare", "pounds; NaN if unknown"),
}
# The best log loss of a five-fold cross-validation on the training rows.
TREES, QUICK_TREES = 80, 20
MAX_DEPTH = 2
HOLDOUT_SHARE = 0.3
MAX_ROWS = 64
CONFIG = f"""\
name: "sklearn_titanic"
platform: "onnxruntime_onnx"
max_batch_size: {MAX_ROWS}
dynamic_batching {{
  max_queue_delay_microseconds: 2000
  default_queue_policy {{ max_queue_size: 512 }}
}}
version_policy {{ latest {{ num_versions: 1 }} }}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""


def train(options: Options, reporter: Reporter) -> list[PublishedVersion]:
    """Train, evaluate and publish."""
    folder = "nannyml/datasets/data"
    files = [package_file("nannyml", f"{folder}/titanic_{part}.csv") for part in ("reference", "analysis", "target")]
    reference, analysis, target = map(read_columns, files)
    if analysis["PassengerId"] != target["PassengerId"]:
        raise ValueError("the Titanic data of nannyml: analysis and target do not list the same passengers")
    inputs = _inputs({name: reference[name] + analysis[name] for name in analysis})
    truth = np.array([int(value) for value in reference["Survived"] + target["Survived"]])
    train_rows, holdout_rows = random_split(len(truth), HOLDOUT_SHARE, options.seed)
    holdout = {name: array[holdout_rows] for name, array in inputs.items()}
    trees = QUICK_TREES if options.quick else TREES
    model = _pipeline(trees, options.seed)
    with reporter.stage("fit"):
        model.fit(_table({name: array[train_rows] for name, array in inputs.items()}), truth[train_rows])

    def predict(rows: Arrays) -> Arrays:
        return two_class_outputs(model.predict_proba(_table(rows))[:, 1])

    with reporter.stage("evaluate, export, publish"):
        candidate = Candidate(
            model="sklearn_titanic",
            summary="Tells from what the passenger list says of a person whether that person survived the Titanic.",
            licence="Apache-2.0",
            onnx=_export(model),
            reference=predict,
            inputs={name: array[:MAX_ROWS] for name, array in holdout.items()},
            tolerance=Tolerance(absolute=1e-5),
            meanings={
                **{name: meaning for name, (_, meaning) in (TEXT_INPUTS | NUMBER_INPUTS).items()},
                **OUTPUT_MEANINGS,
            },
            metrics=binary_metrics(truth[holdout_rows], predict(holdout)["probabilities"][:, 1]),
            baseline="rate of survival of the person's sex",
            baseline_metrics=binary_metrics(
                truth[holdout_rows], _rate_of_sex(inputs["sex"][train_rows], truth[train_rows], holdout["sex"])
            ),
            limitations="One ship. A text that was not in the training data counts as none of the known ones.",
            data=describe_data(
                "Titanic passengers",
                "nannyml",
                files,
                licence="Apache-2.0 (package)",
                training_rows=len(train_rows),
                holdout_rows=len(holdout_rows),
                split=f"random, seed {options.seed}",
            ),
            parameters={"trees": trees, "max_depth": MAX_DEPTH},
            config=CONFIG,
        )
        return [release("sklearn_titanic", options, candidate)]


def _inputs(columns: Mapping[str, list[str]]) -> dict[str, np.ndarray]:
    """The model's inputs, each [N, 1]: text as kind "U", numbers as float32."""
    texts = {name: columns[column] for name, (column, _) in TEXT_INPUTS.items()}
    # "Braund, Mr. Owen Harris" -> "Mr", "C85" -> "C"
    texts["title"] = [full.partition(", ")[2].partition(".")[0] for full in texts["title"]]
    texts["deck"] = [cabin[:1] for cabin in texts["deck"]]
    arrays = {name: np.array(values, dtype=np.str_) for name, values in texts.items()}
    arrays |= {name: numbers(columns[column]) for name, (column, _) in NUMBER_INPUTS.items()}
    return {name: array.reshape(-1, 1) for name, array in arrays.items()}


def _rate_of_sex(sex: np.ndarray, truth: np.ndarray, holdout_sex: np.ndarray) -> np.ndarray:
    """For each row of the hold-out, the share of survivors among those of the same sex in the training data."""
    rates = {value: truth[sex[:, 0] == value].mean() for value in np.unique(sex)}
    return np.array([rates[value] for value in holdout_sex[:, 0]])


def _table(inputs: Arrays) -> np.ndarray:
    """The inputs side by side, as the pipeline takes them: the text columns first."""
    return np.concatenate([inputs[name].astype(object) for name in (*TEXT_INPUTS, *NUMBER_INPUTS)], axis=1)


def _pipeline(trees: int, seed: int) -> Pipeline:
    texts = list(range(len(TEXT_INPUTS)))
    others = list(range(len(TEXT_INPUTS), len(TEXT_INPUTS) + len(NUMBER_INPUTS)))
    columns = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore", min_frequency=5), texts),
            ("number", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), others),
        ],
        sparse_threshold=0,
    )
    return make_pipeline(
        columns, GradientBoostingClassifier(n_estimators=trees, max_depth=MAX_DEPTH, random_state=seed)
    )


def _export(model: Pipeline) -> bytes:
    types = [(name, StringTensorType([None, 1])) for name in TEXT_INPUTS]
    types += [(name, FloatTensorType([None, 1])) for name in NUMBER_INPUTS]
    return with_batch_dimension(convert_sklearn(model, initial_types=types, options={"zipmap": False}))


if __name__ == "__main__":
    main("sklearn_titanic", train, __doc__)
