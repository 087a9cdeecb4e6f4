"""The Yellowstone benchmark measures what it says, with each of our receivers."""

import argparse

from headrace.bench.yellowstone import OURS, run, table


def test_report_has_a_row_for_each_receiver_and_kind() -> None:
    report = run(argparse.Namespace(count=50, runs=1))
    assert (report["accounts"]["count"], report["transactions"]["count"]) == (50, 5)
    for kind in ("accounts", "transactions"):
        for receiver in (*OURS, "grpc.aio"):
            assert report[kind][receiver]["per_s"] > 0
            assert f"| {receiver} |" in table(report)
