"""What the demo reads: redis-benchmark's table, hybrid's status, the kernel's counters."""

from __future__ import annotations

from typing import Any

import pytest

from hybrid.demo.evidence import Counted, counted, datapath, kernel_counters
from hybrid.demo.redis import Benchmark, Measured, medians, parse_csv
from hybrid.errors import HybridError

CSV = (
    '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"\n'
    '"SET","20000.00","0.176","0.032","0.079","0.167","3.071","6.607"\n'
    '"GET","31746.03","0.101","0.032","0.080","0.143","0.607","2.703"\n'
)

SNMP = """\
Icmp: InMsgs InErrors InEchos
Icmp: 9 0 3
Tcp: RtoAlgorithm RtoMin MaxConn InSegs
Tcp: 1 200 -1 4711
"""

STATUS: dict[str, Any] = {
    "interfaces": [
        {
            "name": "hys0",
            "obtained": {"requested": "auto", "mode": "native"},
            "rules": [
                {"name": "redis", "rule": "tcp port 6379 -> afxdp", "packets": 120, "no_socket_packets": 20}
            ],
        }
    ],
    "shards": [{"requested": [{"copy": 0}], "obtained": [{"zerocopy": False}]}],
}


def test_each_row_of_redis_benchmark_is_read() -> None:
    assert parse_csv(CSV, "hybrid", 16) == [
        Measured("hybrid", "SET", 16, 20000.0, 0.079, 3.071),
        Measured("hybrid", "GET", 16, 31746.03, 0.080, 0.607),
    ]


@pytest.mark.parametrize(
    "text",
    ["", "SET: 20000 requests per second\n", CSV.replace("rps", "speed"), CSV.replace("20000.00", "fast")],
)
def test_another_output_of_redis_benchmark_is_an_error_that_says_so(text: str) -> None:
    with pytest.raises(HybridError) as caught:
        parse_csv(text, "hybrid", 1)
    assert "redis-benchmark" in caught.value.message
    assert caught.value.remedy


def test_rounds_are_summed_up_by_the_median_of_each_figure() -> None:
    runs = [
        Measured("hybrid", "GET", 1, rps, p50, 1.0) for rps, p50 in ((100.0, 9.0), (300.0, 1.0), (200.0, 5.0))
    ]
    other = Measured("redis-server", "GET", 1, 7.0, 7.0, 7.0)
    assert medians([*runs, other]) == [Measured("hybrid", "GET", 1, 200.0, 5.0, 1.0), other]


def test_a_pipeline_of_one_is_not_asked_for() -> None:
    assert "-P" not in Benchmark().command("10.0.0.1", 6379, 1)
    assert Benchmark().command("10.0.0.1", 6379, 16)[-2:] == ["-P", "16"]


def test_the_kernels_counters_are_read_by_protocol_and_name() -> None:
    assert kernel_counters(SNMP)["Tcp", "InSegs"] == 4711
    assert kernel_counters(SNMP)["Icmp", "InEchos"] == 3


def test_only_what_a_socket_got_counts_as_steered() -> None:
    assert counted(STATUS, "redis", SNMP) == Counted(to_afxdp=100, kernel_tcp=4711, kernel_pings=3)


def test_a_policy_without_the_rule_is_told_by_the_rules_name() -> None:
    with pytest.raises(HybridError, match="no rule called other"):
        counted(STATUS, "other", SNMP)


def test_requested_and_obtained_are_both_told() -> None:
    path = datapath(STATUS, "redis")
    assert (path.mode_requested, path.mode_obtained) == ("auto", "native")
    assert (path.copy_requested, path.copy_obtained) == ("auto", "copy")


def test_a_datapath_without_a_program_in_service_is_an_error() -> None:
    with pytest.raises(HybridError, match="no program is in service"):
        datapath({**STATUS, "shards": []}, "redis")
