# SPDX-License-Identifier: Apache-2.0
"""Gradient boosted trees by LightGBM: is a person employed? (US census, American Community Survey, Massachusetts)

Trained on the survey of 2015 and evaluated on that of 2016.
"""

from __future__ import annotations

from collections.abc import Mapping

import lightgbm as lgb
import numpy as np
import pyarrow.parquet as parquet
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from training.command import Reporter, main
from training.data import describe_data, package_file
from training.export import with_batch_dimension
from training.provenance import Options
from training.publish import Arrays, PublishedVersion, Tolerance
from training.publish.model_card import Parameter
from training.release import Candidate, release
from training.tabular import OUTPUT_MEANINGS, binary_metrics, logistic_baseline, two_class_outputs

FEATURES = (
    *("AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG", "MIL", "ANC", "NATIVITY"),
    *("DEAR", "DEYE", "DREM", "SEX", "RAC1P"),
)
PARAMETERS: Mapping[str, Parameter] = {
    "objective": "binary",
    "num_leaves": 31,
    "learning_rate": 0.1,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.8,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
ROUNDS, QUICK_ROUNDS = 200, 20
TRAINING_YEAR, HOLDOUT_YEAR = 2015, 2016
MAX_ROWS = 128


def train(options: Options, reporter: Reporter) -> list[PublishedVersion]:
    """Train, evaluate and publish."""
    names = ("employment_MA_reference.pq", "employment_MA_analysis.pq", "employment_MA_analysis_target.pq")
    files = [package_file("nannyml", f"nannyml/datasets/data/{name}") for name in names]
    features, truth, year = _read(*(parquet.read_table(path) for path in files))
    past, later = year == TRAINING_YEAR, year == HOLDOUT_YEAR
    holdout, holdout_truth = features[later], truth[later]

    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    data = lgb.Dataset(features[past], truth[past], feature_name=list(FEATURES))
    booster = lgb.Booster({**PARAMETERS, "seed": options.seed}, data)
    for _ in reporter.track(range(rounds), "boosting rounds"):
        booster.update()

    def predict(inputs: Arrays) -> Arrays:
        return two_class_outputs(np.asarray(booster.predict(inputs["features"])))

    with reporter.stage("evaluate, export, publish"):
        candidate = Candidate(
            model="lightgbm_employment",
            summary="Tells from a person's answers to the census whether that person is employed.",
            licence="Apache-2.0",
            onnx=_export(booster),
            reference=predict,
            inputs={"features": holdout[:MAX_ROWS]},
            tolerance=Tolerance(absolute=1e-5),
            meanings={"features": f"codes of the survey: {', '.join(FEATURES)}", **OUTPUT_MEANINGS},
            metrics=binary_metrics(holdout_truth, np.asarray(booster.predict(holdout))),
            baseline="logistic regression",
            baseline_metrics=logistic_baseline(features[past], truth[past], holdout, holdout_truth),
            limitations="One state, one year. Sex, race and ancestry are features: it must not decide on people.",
            data=describe_data(
                "American Community Survey, employment in Massachusetts",
                "nannyml",
                files,
                licence="US government work, in an Apache-2.0 package",
                training_rows=int(past.sum()),
                holdout_rows=int(later.sum()),
                split=f"by year: {TRAINING_YEAR} for training, {HOLDOUT_YEAR} as hold-out",
            ),
            parameters={**PARAMETERS, "rounds": rounds},
        )
        return [release("lightgbm_employment", options, candidate)]


def _read(
    reference: parquet.Table, analysis: parquet.Table, target: parquet.Table
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features float32[N, 16], employed int64[N] and the year of the survey int64[N]."""
    if not analysis["id"].equals(target["id"]):
        raise ValueError("the employment data of nannyml: analysis and target do not list the same rows")
    columns = [
        np.concatenate([table[name].cast("string").cast("float32").to_numpy() for table in (reference, analysis)])
        for name in FEATURES
    ]
    truth = np.concatenate([reference["employed"].to_numpy(), target["employed"].to_numpy()])
    year = np.concatenate([reference["year"].to_numpy(), analysis["year"].to_numpy()])
    return np.stack(columns, axis=1), truth, year


def _export(booster: lgb.Booster) -> bytes:
    types = [("features", FloatTensorType([None, len(FEATURES)]))]
    return with_batch_dimension(convert_lightgbm(booster, initial_types=types, zipmap=False))


if __name__ == "__main__":
    main("lightgbm_employment", train, __doc__)
