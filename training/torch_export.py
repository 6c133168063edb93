# SPDX-License-Identifier: Apache-2.0
"""From a PyTorch module to files, with any number of rows: ONNX by the dynamo exporter, and TorchScript by tracing."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import torch

from training.export import BATCH, with_batch_dimension
from training.publish import Arrays, Predict


def seed_everything(seed: int) -> None:
    """Make what PyTorch computes from here on depend on the seed alone."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def make_predict(module: torch.nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> Predict:
    """The module's own predictions. It takes `inputs` in this order and gives one tensor, or a tuple of them."""
    module.eval()

    def predict(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            result = module(*(torch.from_numpy(arrays[name]) for name in inputs))
        results = result if isinstance(result, tuple) else (result,)
        return {name: tensor.numpy() for name, tensor in zip(outputs, results, strict=True)}

    return predict


def export_onnx(module: torch.nn.Module, example: Arrays, outputs: Sequence[str]) -> bytes:
    """The ONNX file. `example` has the inputs in the order of the module's arguments, with at least 2 rows."""
    module.eval()
    batch = torch.export.Dim(BATCH)
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(torch.from_numpy(array) for array in example.values()),
            dynamo=True,
            input_names=list(example),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in example),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return with_batch_dimension(program.model_proto)


def export_torchscript(module: torch.nn.Module, example: Arrays) -> tuple[bytes, torch.nn.Module]:
    """The TorchScript file, and the module as loaded back from it."""
    module.eval()
    buffer = io.BytesIO()
    with _quiet(), torch.inference_mode():
        traced = torch.jit.trace(module, tuple(torch.from_numpy(array) for array in example.values()))
        torch.jit.save(torch.jit.freeze(traced), buffer)
    content = buffer.getvalue()
    with _quiet():
        return content, torch.jit.load(io.BytesIO(content))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without notices of what is so on purpose: TorchScript although deprecated, one name for all batch dimensions."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name: batch will not be used")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
