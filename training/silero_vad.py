# SPDX-License-Identifier: Apache-2.0
"""Publish the voice activity detector that the package silero-vad ships, as a model of sequences (16 kHz).

Needs numpy, onnx, onnxruntime and rich, and the package installed without its dependencies; does not import it.

What the package's wrapper keeps between two chunks of a stream (the recurrent state, the end of the last chunk) are
tensors of the published model, which a server keeps instead (docs/sequences.md); the batch dimension comes first in all
of them, so that chunks of different streams run together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from training.command import Reporter, main
from training.data import package_file
from training.provenance import Options, stated_licence
from training.publish import Arrays, PublishedVersion, Tolerance
from training.release import Candidate, release

MODEL_FILE = "silero_vad/data/silero_vad_16k_op15.onnx"
SAMPLE_RATE = 16_000
#: Samples of a chunk, and of the end of the last one that is put before it.
CHUNK, CONTEXT = 512, 64
_STATE = (2, 128)
#: The same kernel may sum in another order for another batch size.
TOLERANCE = Tolerance(absolute=2e-5, relative=1e-4)

CONFIG = """\
name: "silero_vad"
max_batch_size: 64
input { name: "AUDIO" data_type: TYPE_FP32 dims: [512] }
output { name: "PROBABILITY" data_type: TYPE_FP32 dims: [1] }
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest { max_candidate_sequences: 1024 }
  state { input_name: "CONTEXT" output_name: "CONTEXT_OUT" data_type: TYPE_FP32 dims: [64] }
  state { input_name: "STATE" output_name: "STATE_OUT" data_type: TYPE_FP32 dims: [2, 128] }
}
"""


def train(options: Options, reporter: Reporter) -> list[PublishedVersion]:
    """Publish the model."""
    content = package_file("silero-vad", MODEL_FILE).read_bytes()
    predict = package_predictions(content)
    inputs = _stream_of_noise(predict, 8 if options.quick else 32, options.seed)
    candidate = Candidate(
        model="silero_vad",
        summary="Tells how likely a chunk of audio has speech in it; a model of sequences.",
        licence=stated_licence("silero-vad"),
        onnx=with_states(content),
        reference=predict,
        inputs=inputs,
        tolerance=TOLERANCE,
        meanings={
            "AUDIO": "32 ms of audio at 16 kHz, -1 to 1",
            "CONTEXT": "state: the last 4 ms of the chunk before, zeros at first",
            "STATE": "state: of the recurrent layer, zeros at first",
            "PROBABILITY": "of speech in the chunk",
            "CONTEXT_OUT": "CONTEXT of the next chunk",
            "STATE_OUT": "STATE of the next chunk",
        },
        metrics={},
        limitations="The package's own model; not evaluated here, since it comes with no labelled audio. The rows of "
        "expected.npz are noise. Other sample rates need resampling.",
        config=CONFIG,
    )
    return [release("silero_vad", options, candidate)]


def with_states(content: bytes) -> bytes:
    """The package's model with all that it needs from the last chunk as inputs, and all that the next needs as outputs.

    AUDIO float32[N,512], CONTEXT float32[N,64], STATE float32[N,2,128] -> PROBABILITY float32[N,1], CONTEXT_OUT,
    STATE_OUT.
    """
    model = onnx.load_from_string(content)
    graph = model.graph
    constants = {"rate": np.array(SAMPLE_RATE), "begin": np.array([-CONTEXT])}
    constants |= {"end": np.array([CHUNK]), "axis": np.array([1])}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    before = [
        helper.make_node("Concat", ["CONTEXT", "AUDIO"], ["input"], axis=1),
        helper.make_node("Transpose", ["STATE"], ["state"], perm=[1, 0, 2]),
        helper.make_node("Identity", ["rate"], ["sr"]),
    ]
    after = [
        helper.make_node("Identity", ["output"], ["PROBABILITY"]),
        helper.make_node("Slice", ["AUDIO", "begin", "end", "axis"], ["CONTEXT_OUT"]),
        helper.make_node("Transpose", ["stateN"], ["STATE_OUT"], perm=[1, 0, 2]),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    for tensors, shapes in (
        (graph.input, {"AUDIO": [CHUNK], "CONTEXT": [CONTEXT], "STATE": [*_STATE]}),
        (graph.output, {"PROBABILITY": [1], "CONTEXT_OUT": [CONTEXT], "STATE_OUT": [*_STATE]}),
    ):
        tensors.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]) for name, shape in shapes.items()
        )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def package_predictions(content: bytes) -> Callable[[Arrays], Arrays]:
    """The package's file itself, called as the package calls it: one stream at a time."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def predict(inputs: Arrays) -> Arrays:
        rows = []
        for audio, context, state in zip(inputs["AUDIO"], inputs["CONTEXT"], inputs["STATE"], strict=True):
            heard = np.concatenate([context, audio])[None]
            feed = {"input": heard, "state": state[:, None, :], "sr": np.array(SAMPLE_RATE)}
            probability, next_state = session.run(None, feed)
            rows.append((probability[0], audio[-CONTEXT:], next_state[:, 0, :]))
        names = ("PROBABILITY", "CONTEXT_OUT", "STATE_OUT")
        return {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}

    return predict


def _stream_of_noise(predict: Callable[[Arrays], Arrays], chunks: int, seed: int) -> Arrays:
    """The inputs of each chunk of one stream, with the states that it really has there."""
    audio = np.random.default_rng(seed).normal(0, 0.1, (chunks, CHUNK)).astype(np.float32)
    context, state = np.zeros((1, CONTEXT), np.float32), np.zeros((1, *_STATE), np.float32)
    rows = []
    for chunk in audio:
        rows.append((chunk, context[0], state[0]))
        heard = predict({"AUDIO": chunk[None], "CONTEXT": context, "STATE": state})
        context, state = heard["CONTEXT_OUT"], heard["STATE_OUT"]
    columns = zip(*rows, strict=True)
    return {name: np.stack(column) for name, column in zip(("AUDIO", "CONTEXT", "STATE"), columns, strict=True)}


if __name__ == "__main__":
    main("silero_vad", train, __doc__)
