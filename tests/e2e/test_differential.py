# SPDX-License-Identifier: Apache-2.0
"""Whatever tritonclient can ask of a model with inputs of many types comes back byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.utils import serialize_byte_tensor

from .harness import RunningServer, inputs_of, serve, write_sim

#: Input -> numpy type and the number of dimensions besides the batch.
INPUTS: dict[str, tuple[Any, int]] = {
    "flags": (np.bool_, 1),
    "pixels": (np.uint8, 3),
    "ids": (np.int64, 0),
    "halves": (np.float16, 2),
    "values": (np.float64, 1),
    "words": (np.object_, 1),
}
PROTOCOL_NAMES = {
    "flags": "BOOL",
    "pixels": "UINT8",
    "ids": "INT64",
    "halves": "FP16",
    "values": "FP64",
    "words": "BYTES",
}
MAX_ROWS = 64


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, frontend: str) -> Iterator[triton.InferenceServerClient]:
    """Of a server with `many`, which gives back each of its inputs."""
    repository = tmp_path_factory.mktemp("many")
    lines = [f"input {name} {PROTOCOL_NAMES[name]} {'-1 ' * (1 + rank)}" for name, (_, rank) in INPUTS.items()]
    lines += [
        f"output {name}_out {PROTOCOL_NAMES[name]} {'-1 ' * (1 + rank)} = identity {name}"
        for name, (_, rank) in INPUTS.items()
    ]
    write_sim(repository, "many", 1, "\n".join(lines) + "\n")
    with serve(repository, frontend=frontend) as server, RunningServer.client(server) as client:
        yield client


def content(array: npt.NDArray[Any]) -> bytes:
    """As it travels; NaNs and negative zeros count."""
    return bytes(serialize_byte_tensor(array).item()) if array.dtype == np.object_ and array.size else array.tobytes()


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """The arguments of one `infer`: tensors of equal rows and any other shape, empty ones included."""
    rows = draw(st.integers(1, 5) | st.just(MAX_ROWS))
    arrays = {}
    for name, (dtype, rank) in INPUTS.items():
        side = 2 if rows == MAX_ROWS else 3
        shape = (
            (rows, *draw(hnp.array_shapes(min_dims=rank, max_dims=rank, min_side=0, max_side=side)))
            if rank
            else (rows,)
        )
        elements = st.binary(max_size=9) if dtype is np.object_ else None
        fill = st.just(b"x") if dtype is np.object_ else None
        arrays[name] = draw(hnp.arrays(dtype, shape, elements=elements, fill=fill))
    names = draw(st.permutations(list(INPUTS)))
    wanted = draw(st.none() | st.lists(st.sampled_from([f"{name}_out" for name in INPUTS]), min_size=1, unique=True))
    return {
        "inputs": {name: arrays[name] for name in names},
        "outputs": wanted,
        "request_id": draw(st.text(st.characters(codec="utf-8"), max_size=20)),
        "priority": draw(st.integers(0, 3)),
        "parameters": draw(
            st.none()
            | st.dictionaries(
                st.sampled_from(["a", "b", "ünï"]), st.booleans() | st.integers(-5, 5) | st.text(max_size=5)
            )
        ),
        "compression_algorithm": draw(st.sampled_from([None, None, "gzip", "deflate"])),
    }


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(call=calls())
def test_any_request_is_answered_with_its_own_bytes(client: triton.InferenceServerClient, call: dict[str, Any]) -> None:
    wanted = call["outputs"]
    answer = client.infer(
        "many",
        inputs_of(call["inputs"]),
        outputs=wanted and [triton.InferRequestedOutput(name) for name in wanted],
        **{key: call[key] for key in ("request_id", "priority", "parameters", "compression_algorithm")},
    )
    response = answer.get_response()
    assert response.id == call["request_id"]
    assert [output.name for output in response.outputs] == (wanted or [f"{name}_out" for name in INPUTS])
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        array = call["inputs"][output.name.removesuffix("_out")]
        assert tuple(output.shape) == array.shape
        assert raw == content(array)
