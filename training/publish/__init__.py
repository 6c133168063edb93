# SPDX-License-Identifier: Apache-2.0
"""Put model versions into a repository, whole: proven, documented, listed in a manifest, renamed into place.

onnx = OnnxModel(model_bytes)
proof = prove_parity("model.onnx", onnx.predict, framework_predict, inputs, Tolerance(absolute=1e-5))
contents = VersionContents({"model.onnx": model_bytes}, card, Examples(inputs, outputs), [proof])
published = publish_version(Path("model_repo"), "my_model", contents)
"""

from training.publish.errors import ConfigConflictError, ParityError, PublishError, VersionExistsError
from training.publish.model_card import DataSource, ModelCard, Origin, Tensor
from training.publish.onnx_model import OnnxModel
from training.publish.parity import Arrays, ParityProof, Predict, Tolerance, prove_parity
from training.publish.publisher import Examples, PublishedVersion, VersionContents, publish_version

__all__ = [
    "Arrays",
    "ConfigConflictError",
    "DataSource",
    "Examples",
    "ModelCard",
    "OnnxModel",
    "Origin",
    "ParityError",
    "ParityProof",
    "Predict",
    "PublishError",
    "PublishedVersion",
    "Tensor",
    "Tolerance",
    "VersionContents",
    "VersionExistsError",
    "prove_parity",
    "publish_version",
]
