# SPDX-License-Identifier: Apache-2.0
"""Gradient boosted trees by XGBoost: is a district's house value above the median? (California housing, 1990 census)"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xgboost as xgb
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from training.command import Reporter, main
from training.data import describe_data, numbers, package_file, random_split, read_columns
from training.export import with_batch_dimension
from training.provenance import Options
from training.publish import Arrays, PublishedVersion, Tolerance
from training.publish.model_card import Parameter
from training.release import Candidate, release
from training.tabular import OUTPUT_MEANINGS, binary_metrics, logistic_baseline, two_class_outputs

FEATURES = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
PARAMETERS: Mapping[str, Parameter] = {
    "objective": "binary:logistic",
    "max_depth": 6,
    "eta": 0.1,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "nthread": 1,
}
ROUNDS, QUICK_ROUNDS = 200, 40
HOLDOUT_SHARE = 0.2
#: The batches of the proof, and the largest batch served.
MAX_ROWS = 128
CONFIG = f"""\
name: "xgboost_housing"
backend: "onnxruntime"
max_batch_size: {MAX_ROWS}
dynamic_batching {{
  preferred_batch_size: [ 32, {MAX_ROWS} ]
  max_queue_delay_microseconds: 500
}}
version_policy {{ latest {{ num_versions: 2 }} }}
"""


def train(options: Options, reporter: Reporter) -> list[PublishedVersion]:
    """Train, evaluate and publish."""
    reference_file = package_file("nannyml", "nannyml/datasets/data/california_housing_reference.csv")
    analysis_file = package_file("nannyml", "nannyml/datasets/data/california_housing_analysis.csv")
    target_file = package_file("nannyml", "nannyml/datasets/data/california_housing_analysis_gt.csv")
    reference, analysis, target = (read_columns(path) for path in (reference_file, analysis_file, target_file))
    if analysis["id"] != target["id"]:
        raise ValueError(f"{target_file.name} and {analysis_file.name} of nannyml do not list the same rows")
    features = np.stack([numbers(reference[name] + analysis[name]) for name in FEATURES], axis=1)
    truth = numbers(reference["clf_target"] + target["clf_target"]).astype(np.int64)
    train_rows, holdout_rows = random_split(len(truth), HOLDOUT_SHARE, options.seed)
    holdout, holdout_truth = features[holdout_rows], truth[holdout_rows]

    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    booster = _boost(features[train_rows], truth[train_rows], rounds, options.seed, reporter)

    def predict(inputs: Arrays) -> Arrays:
        return two_class_outputs(booster.predict(xgb.DMatrix(inputs["features"])))

    with reporter.stage("evaluate, export, publish"):
        candidate = Candidate(
            model="xgboost_housing",
            summary="Tells whether a Californian district's house value is above the median of all districts.",
            licence="Apache-2.0",
            onnx=_export(booster),
            reference=predict,
            inputs={"features": holdout[:MAX_ROWS]},
            tolerance=Tolerance(absolute=1e-5),
            meanings={"features": ", ".join(FEATURES), **OUTPUT_MEANINGS},
            metrics=binary_metrics(holdout_truth, booster.predict(xgb.DMatrix(holdout))),
            baseline="logistic regression",
            baseline_metrics=logistic_baseline(features[train_rows], truth[train_rows], holdout, holdout_truth),
            limitations="Census of 1990. A random split lets neighbouring districts be in both parts, which flatters.",
            data=describe_data(
                "California housing, with a target of two classes",
                "nannyml",
                (reference_file, analysis_file, target_file),
                licence="Apache-2.0 (package)",
                training_rows=len(train_rows),
                holdout_rows=len(holdout_rows),
                split=f"random, seed {options.seed}",
            ),
            parameters={**PARAMETERS, "rounds": rounds},
            config=CONFIG,
        )
        return [release("xgboost_housing", options, candidate)]


def _boost(features: np.ndarray, truth: np.ndarray, rounds: int, seed: int, reporter: Reporter) -> xgb.Booster:
    data = xgb.DMatrix(features, truth)
    booster = xgb.Booster({**PARAMETERS, "seed": seed}, [data])
    for step in reporter.track(range(rounds), "boosting rounds"):
        booster.update(data, step)
    return booster


def _export(booster: xgb.Booster) -> bytes:
    model = convert_xgboost(booster, initial_types=[("features", FloatTensorType([None, len(FEATURES)]))])
    return with_batch_dimension(model)


if __name__ == "__main__":
    main("xgboost_housing", train, __doc__)
