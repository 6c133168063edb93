# SPDX-License-Identifier: Apache-2.0
"""Reports of the benches of the scheduler, and their arms."""

from google.protobuf import text_format
from gristmill_protos.model_config_pb2 import ModelConfig

from bench.load import neighbour, overload, sweep
from bench.reports import neighbour as neighbour_report
from bench.reports import overload as overload_report
from bench.reports import sweep as sweep_report


def test_an_overload_has_a_row_for_each_load_and_arm() -> None:
    results = [
        overload.OverloadResult(arm, load, 4000, min(load, 1), 0, 1, 2, [1])
        for load in overload.LOADS
        for arm in (overload.ADAPTIVE, overload.FIXED)
    ]
    assert len(overload_report.table(results).rows) == 2 * len(overload.LOADS)
    assert overload.goodput_of(results, overload.FIXED) == [min(load, 1) for load in overload.LOADS]
    assert len(overload_report.plot(results).axes) == 1


def test_every_arm_of_the_sweep_is_a_configuration_of_its_own() -> None:
    configs = [text_format.Parse(text, ModelConfig()) for text in sweep.arms().values()]
    assert len({config.SerializeToString() for config in configs}) == 16
    assert [config.dynamic_batching.max_queue_delay_microseconds for config in configs].count(0) == 1


def test_a_sweep_has_a_row_for_each_load() -> None:
    results = [sweep.SweepResult(load, 400, 2, 4, "batch_16_delay_1us", 2, 4, 1, 1, 9) for load in sweep.LOADS]
    assert len(sweep_report.table(results).rows) == len(sweep.LOADS)
    assert len(sweep_report.plot(results).axes) == 1


def test_a_neighbour_has_one_row() -> None:
    results = [neighbour.NeighbourResult(2000, 0.1, 0.2, 0.3, 4, 60, 0.07)]
    assert neighbour_report.table(results).rows == [["0.1", "0.2", "0.3", "4", "60", "0.07"]]
    assert len(neighbour_report.plot(results).axes) == 1
