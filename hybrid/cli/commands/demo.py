"""``hybrid demo POLICY``: the main job on one machine, beside redis-server. Run by tools/quickstart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybrid.cli.output import table
from hybrid.cli.session import session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hybrid.demo.story import Report

__all__ = ["command"]


def command(
    ctx: typer.Context,
    policy: Annotated[
        Path, typer.Argument(metavar="POLICY", help="What to steer: TCP to port 6379 on hys0.")
    ],
    requests: Annotated[
        int, typer.Option("--requests", min=1000, help="Requests per benchmark run.")
    ] = 100_000,
    clients: Annotated[int, typer.Option("--clients", min=1, max=1000, help="Connections at once.")] = 50,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=100, help="Turns of each server.")] = 3,
    keep: Annotated[bool, typer.Option("--keep", help="Leave lab and server up, to go on by hand.")] = False,
    name: Annotated[str, typer.Option("--name", help="Which lab to make and remove.")] = "quickstart",
) -> None:
    """Show the main job: real clients, our server and redis-server side by side. Needs root."""
    from hybrid.demo.redis import Benchmark
    from hybrid.demo.story import Story

    story = Story(policy, Benchmark(clients, requests), rounds, _tell, keep=keep, name=name)
    report = story.run()
    session(ctx).output.emit(_data(report), *_text(report))


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _data(report: Report) -> dict[str, Any]:
    from hybrid.bench.machine import machine
    from hybrid.demo.story import as_table

    return {
        "bench": "redis-benchmark",
        "machine": machine(),
        "clients": report.benchmark.clients,
        "requests": report.benchmark.requests,
        "rounds": report.rounds,
        "rows": report.rows,
        "ratios": [
            {
                "case": f"{test}, pipeline {pipeline}",
                "subject": "hybrid",
                "versus": "redis-server",
                "value": ours.requests_per_s / peer.requests_per_s,
            }
            for test, pipeline, ours, peer in as_table(report.rows)
        ],
        "ways": report.ways,
        "path": report.path,
    }


def _text(report: Report) -> list[RenderableType]:
    from hybrid.demo.story import as_table

    figures = table(
        (
            "test",
            ">pipeline",
            ">hybrid, requests/s",
            ">redis-server, requests/s",
            ">ratio",
            ">p50, ms",
            ">its p50",
            ">p99, ms",
            ">its p99",
        ),
        (
            (
                test,
                pipeline,
                f"{ours.requests_per_s:,.0f}",
                f"{peer.requests_per_s:,.0f}",
                f"{ours.requests_per_s / peer.requests_per_s:.2f}",
                f"{ours.p50_ms:.3f}",
                f"{peer.p50_ms:.3f}",
                f"{ours.p99_ms:.3f}",
                f"{peer.p99_ms:.3f}",
            )
            for test, pipeline, ours, peer in as_table(report.rows)
        ),
        title=f"redis-benchmark, {report.benchmark.clients} clients, {report.benchmark.requests:,} requests, "
        f"median of {report.rounds}",
    )
    ways = table(
        ("traffic", ">frames to AF_XDP", ">TCP segments to the kernel", ">pings to the kernel"),
        (
            (
                way.traffic,
                *(f"{n:,}" for n in (way.counted.to_afxdp, way.counted.kernel_tcp, way.counted.kernel_pings)),
            )
            for way in report.ways
        ),
        title="Which way it went",
    )
    assert report.path is not None
    path = report.path
    obtained = (
        f"{path.interface}: rule {path.rule}\n"
        f"attach mode: {path.mode_obtained} (requested {path.mode_requested}); "
        f"frames: {path.copy_obtained} (requested {path.copy_requested})"
    )
    return ["", figures, "", ways, "", obtained]
