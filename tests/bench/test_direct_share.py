# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
from gristmill_protos.inference_pb2 import ModelInferResponse

from bench.client import WrongAnswerError
from bench.load.direct_share import require_outputs
from bench.models import SampleModel

SAMPLE = SampleModel("m", Path("m"), {}, {"y": np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)})


def answer(*values: float) -> bytes:
    response = ModelInferResponse(model_name="m")
    response.outputs.add(name="y", datatype="FP32", shape=[len(values) // 2, 2])
    response.raw_output_contents.append(np.array(values, dtype=np.float32).tobytes())
    return response.SerializeToString()


def test_the_published_examples_are_expected_over_and_over() -> None:
    require_outputs(answer(1, 2, 3, 4, 1, 2), SAMPLE, 3)
    require_outputs(answer(1, 2.0001), SAMPLE, 1)


@pytest.mark.parametrize("values", [(1, 2), (1, 2, 3, 5), (3, 4, 1, 2), ()])
def test_other_values_or_rows_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(WrongAnswerError, match="m answers y"):
        require_outputs(answer(*values), SAMPLE, 2)


def test_an_answer_without_the_output_is_refused() -> None:
    with pytest.raises(WrongAnswerError, match="m answers"):
        require_outputs(ModelInferResponse(model_name="m").SerializeToString(), SAMPLE, 1)
