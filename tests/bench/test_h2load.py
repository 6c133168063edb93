# SPDX-License-Identifier: Apache-2.0
import pytest

from bench.h2load import H2loadError, parse_latencies_us, parse_report

REPORT = """
starting benchmark...
Application protocol: h2c
progress: 100% done

finished in {finished}, {rate} req/s, 1.07MB/s
requests: 3000 total, 3000 started, 3000 done, {succeeded} succeeded, {failed} failed, {failed} errored, 0 timeout
status codes: {succeeded} 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 252.29KB (258346) total, 5.05KB (5170) headers (space savings 98.11%), 178.71KB (183000) data
                     min         max         mean         sd        +/- sd
time for request:     1.28ms     38.83ms     {mean}      3.25ms    86.20%
time for connect:      122us       197us       165us        33us    50.00%
time to 1st byte:     1.54ms      5.03ms      3.69ms      1.50ms    50.00%
req/s           :    1063.79     1070.13     1067.33        2.60    50.00%
"""


def report(finished: str = "703.51ms", rate: str = "4264.36", mean: str = "14.88ms", succeeded: int = 3000) -> str:
    return REPORT.format(finished=finished, rate=rate, mean=mean, succeeded=succeeded, failed=3000 - succeeded)


def test_a_report_gives_count_rate_and_latency() -> None:
    result = parse_report(report())
    assert result.requests == 3000
    assert result.wall_s == pytest.approx(0.7035, rel=1e-3)
    assert result.requests_per_s == pytest.approx(4264.36)
    assert result.mean_latency_us == pytest.approx(14_880)


@pytest.mark.parametrize(
    ("mean", "expected_us"), [("165us", 165), ("1.95ms", 1950), ("2.50s", 2_500_000), ("1.5m", 90_000_000)]
)
def test_each_unit_of_time_is_read(mean: str, expected_us: float) -> None:
    assert parse_report(report(mean=mean)).mean_latency_us == pytest.approx(expected_us)


def test_without_a_rate_the_duration_is_used() -> None:
    assert parse_report(report(finished="1.50s", rate="0.00")).wall_s == pytest.approx(1.5)


def test_a_request_that_failed_is_an_error_that_counts() -> None:
    with pytest.raises(H2loadError, match="of 3000 requests 3000 were answered and 2999 succeeded"):
        parse_report(report(succeeded=2999))


def test_latencies_are_read_from_the_log() -> None:
    assert parse_latencies_us("1700000000000001\t200\t412\n1700000000000009\t200\t77\n") == [412, 77]


@pytest.mark.parametrize("log", ["1\t-1\t412\n", "1\t200\n"])
def test_a_log_with_a_failed_request_or_half_a_line_is_an_error(log: str) -> None:
    with pytest.raises(H2loadError, match="in h2load's log"):
        parse_latencies_us(log)


def test_what_is_no_report_is_shown() -> None:
    with pytest.raises(H2loadError, match="could not connect"):
        parse_report("could not connect to host")


def test_a_report_of_no_request_is_an_error() -> None:
    empty = report().replace("3000", "0")
    with pytest.raises(H2loadError, match="of 0 requests"):
        parse_report(empty)
