# SPDX-License-Identifier: Apache-2.0
"""A two-tower recommender in PyTorch: how well does a film suit a user? (MovieLens 100k)"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from training.command import Reporter, main
from training.data import describe_data
from training.movielens import Interactions, MovieLens, read_movielens
from training.provenance import Options
from training.publish import PublishedVersion, Tolerance
from training.release import Candidate, release
from training.torch_export import export_onnx, make_predict, seed_everything

EPOCHS, QUICK_EPOCHS = 16, 3
BATCH_ROWS = 1024
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-5
EMBEDDING, HIDDEN, VECTOR = 48, 128, 48
#: Cosine similarities are divided by this before the softmax.
TEMPERATURE = 0.1
TOP = 10
MAX_ROWS = 256


class Tower(nn.Module):
    """Id embedding and side features through a multilayer perceptron: ids int64[...] -> unit vectors [..., VECTOR].

    An id below 1 or above the highest known one is an error of the run, never somebody else's vector.
    """

    features: torch.Tensor

    def __init__(self, features: np.ndarray) -> None:
        """`features` are float32[highest id + 1, columns]."""
        super().__init__()
        self.register_buffer("features", torch.from_numpy(features))
        self.embedding = nn.Embedding(len(features), EMBEDDING)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.perceptron = nn.Sequential(
            nn.Linear(EMBEDDING + features.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, VECTOR)
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The ids' vectors."""
        # A negative index would count from the end, and 0 is nobody: make both as wrong as an id that is too high.
        rows = torch.where(ids < 1, len(self.features), ids)
        known = torch.cat([self.embedding(rows), nn.functional.embedding(rows, self.features)], dim=-1)
        vectors: torch.Tensor = nn.functional.normalize(self.perceptron(known), dim=-1)
        return vectors


class TwoTower(nn.Module):
    """The similarity of a user's and an item's vector, divided by the temperature."""

    def __init__(self, user_features: np.ndarray, item_features: np.ndarray) -> None:
        """Each float32[highest id + 1, columns]."""
        super().__init__()
        self.users = Tower(user_features)
        self.items = Tower(item_features)

    def forward(self, user_id: torch.Tensor, item_id: torch.Tensor) -> torch.Tensor:
        """Ids int64[N, 1] each -> scores float32[N, 1]."""
        scores: torch.Tensor = (self.users(user_id) * self.items(item_id)).sum(dim=-1) / TEMPERATURE
        return scores

    def score_all(self, user_id: torch.Tensor) -> torch.Tensor:
        """Ids int64[N] -> the scores of all items [N, highest item id], the item of id 1 first."""
        items = torch.arange(1, len(self.items.features))
        scores: torch.Tensor = self.users(user_id) @ self.items(items).T / TEMPERATURE
        return scores


def train(options: Options, reporter: Reporter) -> list[PublishedVersion]:
    """Train, evaluate and publish."""
    with reporter.stage("read the data"):
        data = read_movielens()
    seed_everything(options.seed)
    model = TwoTower(data.user_features, data.item_features)
    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    _fit(model, data.training, epochs, reporter)
    model.eval()
    rows = slice(0, len(data.holdout), len(data.holdout) // MAX_ROWS)
    inputs = {
        "user_id": data.holdout.users[rows][:MAX_ROWS, None],
        "item_id": data.holdout.items[rows][:MAX_ROWS, None],
    }
    with reporter.stage("evaluate, export, publish"):
        candidate = Candidate(
            model="recommender",
            summary="Scores how well a film suits a user; the higher, the better. Only one user's scores compare.",
            licence="Apache-2.0",
            onnx=export_onnx(model, inputs, ["score"]),
            reference=make_predict(model, ["user_id", "item_id"], ["score"]),
            inputs=inputs,
            tolerance=Tolerance(absolute=2e-5, relative=1e-5),
            meanings={
                "user_id": f"1 to {len(data.user_features) - 1}; any other fails the request",
                "item_id": f"1 to {len(data.item_features) - 1}; any other fails the request",
                "score": "similarity of the two, -10 to 10",
            },
            metrics=_evaluate(_model_scores(model), data),
            baseline="the most popular films",
            baseline_metrics=_evaluate(_popularity(data), data),
            limitations="Knows the users and films of 1998 only, and is trained on what people chose to rate.",
            data=describe_data(
                "MovieLens 100k",
                "recbole",
                data.files,
                licence="GroupLens: research use, no redistribution",
                training_rows=len(data.training),
                holdout_rows=len(data.holdout),
                split="by time: the last fifth of each user's ratings is the hold-out",
            ),
            parameters={
                "epochs": epochs,
                "batch_rows": BATCH_ROWS,
                "learning_rate": LEARNING_RATE,
                "weight_decay": WEIGHT_DECAY,
                "embedding": EMBEDDING,
                "hidden": HIDDEN,
                "vector": VECTOR,
                "temperature": TEMPERATURE,
                "loss": "softmax over all films",
            },
        )
        return [release("recommender", options, candidate)]


def _fit(model: TwoTower, ratings: Interactions, epochs: int, reporter: Reporter) -> None:
    """Let each liked film win against all others. The catalogue is small enough to need no sampling of them."""
    model.train()
    liked = ratings.liked == 1
    users, items = torch.from_numpy(ratings.users[liked]), torch.from_numpy(ratings.items[liked])
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    order = torch.cat([torch.randperm(len(users)) for _ in range(epochs)])
    batches = order.split(BATCH_ROWS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(batches))
    for rows in reporter.track(batches, f"{epochs} epochs, in steps"):
        loss = nn.functional.cross_entropy(model.score_all(users[rows]), items[rows] - 1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _model_scores(model: TwoTower) -> np.ndarray:
    """Scores of all users and items, float32[users, items]."""
    with torch.inference_mode():
        return model.score_all(torch.arange(1, len(model.users.features))).numpy()


def _popularity(data: MovieLens) -> np.ndarray:
    """How many users liked each item in the training data, the same for all users."""
    items = data.training.items[data.training.liked == 1]
    counts = np.bincount(items - 1, minlength=len(data.item_features) - 1).astype(np.float32)
    return np.broadcast_to(counts, (len(data.user_features) - 1, len(counts)))


def _evaluate(scores: np.ndarray, data: MovieLens) -> dict[str, float]:
    """Recall and NDCG of the first ten items that the user has not yet rated, averaged over users with a liked one.

    Recall is the share of the hold-out's liked items found, or of ten if there are more.
    """
    rated = np.zeros(scores.shape, dtype=bool)
    rated[data.training.users - 1, data.training.items - 1] = True
    wanted = np.zeros(scores.shape, dtype=bool)
    liked = data.holdout.liked == 1
    wanted[data.holdout.users[liked] - 1, data.holdout.items[liked] - 1] = True
    having = wanted.any(axis=1)
    ranking = np.argsort(-np.where(rated, -np.inf, scores)[having], axis=1, kind="stable")[:, :TOP]
    hits = np.take_along_axis(wanted[having], ranking, axis=1)
    totals = wanted[having].sum(axis=1)
    discounts = 1 / np.log2(np.arange(2, TOP + 2))
    ideal = np.cumsum(discounts)[np.minimum(totals, TOP) - 1]
    return {
        f"recall@{TOP}": float((hits.sum(axis=1) / np.minimum(totals, TOP)).mean()),
        f"ndcg@{TOP}": float(((hits * discounts).sum(axis=1) / ideal).mean()),
    }


if __name__ == "__main__":
    main("recommender", train, __doc__)
