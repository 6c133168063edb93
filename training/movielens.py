# SPDX-License-Identifier: Apache-2.0
"""The MovieLens 100k ratings from the recbole package: ids, side features, and a split by time.

Rows of the side features are indexed by id; ids begin at 1, and row 0 belongs to nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data import package_file, read_columns

LIKED_RATING = 4
HOLDOUT_SHARE = 0.2


@dataclass(frozen=True)
class Interactions:
    """Ratings as parallel int64 arrays, oldest first within each user. `liked` is a rating of 4 or 5."""

    users: np.ndarray
    items: np.ndarray
    liked: np.ndarray

    def __len__(self) -> int:
        """How many ratings there are."""
        return len(self.users)


@dataclass(frozen=True)
class MovieLens:
    """Training and hold-out ratings, and float32 side features [ids + 1, features] of users and items."""

    files: Sequence[Path]
    training: Interactions
    holdout: Interactions
    user_features: np.ndarray
    item_features: np.ndarray


def read_movielens() -> MovieLens:
    """Read the data. The hold-out is the last fifth, by time, of each user's ratings."""
    files = [
        package_file("recbole", f"recbole/dataset_example/ml-100k/ml-100k.{kind}") for kind in ("inter", "user", "item")
    ]
    ratings, users, items = (read_columns(path, delimiter="\t") for path in files)
    user, item, time = (
        np.array(ratings[name], dtype=np.float64).astype(np.int64)
        for name in ("user_id:token", "item_id:token", "timestamp:float")
    )
    liked = np.array(ratings["rating:float"], dtype=np.float64) >= LIKED_RATING
    order = np.lexsort((item, time, user))
    user, item, liked = user[order], item[order], liked[order].astype(np.int64)
    starts, counts = np.unique(user, return_index=True, return_counts=True)[1:]
    position = np.arange(len(user)) - np.repeat(starts, counts)
    late = position >= np.repeat(counts - np.floor(counts * HOLDOUT_SHARE).astype(np.int64), counts)
    return MovieLens(
        files,
        Interactions(user[~late], item[~late], liked[~late]),
        Interactions(user[late], item[late], liked[late]),
        _user_features(users),
        _item_features(items),
    )


def _user_features(columns: dict[str, list[str]]) -> np.ndarray:
    """Age in units of 50 years, then one column per gender and occupation."""
    ages = np.array(columns["age:token"], dtype=np.float32)[:, None] / 50
    return _by_id(columns["user_id:token"], ages, columns["gender:token"], columns["occupation:token"])


def _item_features(columns: dict[str, list[str]]) -> np.ndarray:
    """Age of the film in 2000 in units of 50 years (1 for an unknown one), then one column per genre."""
    years = np.array([float(year) if year.isdecimal() else 1950.0 for year in columns["release_year:token"]])
    ages = ((2000 - years) / 50).astype(np.float32)[:, None]
    return _by_id(columns["item_id:token"], ages, columns["class:token_seq"])


def _by_id(ids: Sequence[str], dense: np.ndarray, *texts: Sequence[str]) -> np.ndarray:
    """`dense` and one 0/1 column for each word of each text column, in rows numbered by id."""
    blocks = [dense]
    for column in texts:
        words = sorted({word for text in column for word in text.split()})
        blocks.append(np.array([[word in text.split() for word in words] for text in column], dtype=np.float32))
    rows = np.array(ids, dtype=np.int64)
    features = np.zeros((rows.max() + 1, sum(block.shape[1] for block in blocks)), dtype=np.float32)
    features[rows] = np.concatenate(blocks, axis=1)
    return features
