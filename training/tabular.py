# SPDX-License-Identifier: Apache-2.0
"""What the scripts for binary classification of tables share: metrics, a baseline, the boosted trees' way out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.publish import Arrays

#: Outputs of a published classifier of two classes.
OUTPUT_MEANINGS: Mapping[str, str] = {"label": "the more probable class", "probabilities": "of class 0 and of class 1"}


def binary_metrics(truth: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Area under the ROC curve, accuracy at 0.5 and mean log loss of the probability of class 1."""
    return {
        "auc": float(roc_auc_score(truth, probability)),
        "accuracy": float(accuracy_score(truth, probability > 0.5)),
        "log_loss": float(log_loss(truth, probability)),
    }


def logistic_baseline(
    features: np.ndarray, truth: np.ndarray, holdout_features: np.ndarray, holdout_truth: np.ndarray
) -> dict[str, float]:
    """The metrics of a logistic regression on standardised features, missing ones replaced by the median."""
    model = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(features, truth)
    return binary_metrics(holdout_truth, model.predict_proba(holdout_features)[:, 1])


def two_class_outputs(probability: np.ndarray) -> Arrays:
    """What the exported classifier answers, given the probability of class 1: label int64[N], probabilities [N, 2]."""
    probability = probability.astype(np.float32)
    return {
        "label": (probability > 0.5).astype(np.int64),
        "probabilities": np.stack([1 - probability, probability], axis=1),
    }
