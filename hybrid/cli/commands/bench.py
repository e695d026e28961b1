"""``hybrid bench``: the peers beside us in the same run, in turns, and the ratio."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybrid.cli.output import table
from hybrid.cli.session import session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hybrid.bench.result import Result

app = typer.Typer(
    help="Measure us and our peers in the same run, taking turns, and print the ratio.", no_args_is_help=True
)


class Mode(StrEnum):
    """How an XDP program attaches."""

    NATIVE = "native"
    GENERIC = "generic"


Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw the latency CDF: a .png, .svg or .pdf file."),
]
Rounds = Annotated[int, typer.Option("--rounds", min=1, max=1000, help="Turns that every subject has.")]


def _text(result: Result) -> list[RenderableType]:
    """Rows, ratios with what is aimed at, and the sentences that belong to them."""
    rows = table(
        ["case", "subject", ">p50", ">p99", ">p999", "unit", ">n"],
        (
            (r.case, r.subject, f"{r.p50:.2f}", f"{r.p99:.2f}", f"{r.p999:.2f}", r.unit, r.n)
            for r in result.rows()
        ),
    )
    aims = {(aim.case, aim.subject, aim.versus): aim.at_most for aim in result.aims}
    ratios = table(
        ["ratio of p50", "case", ">value", ">aim", ""],
        (
            (
                f"{r.subject} / {r.versus}",
                r.case,
                f"{r.value:.2f}",
                f"<= {aims[r.case, r.subject, r.versus]:.2f}",
                "met" if r.value <= aims[r.case, r.subject, r.versus] else "not met",
            )
            for r in result.ratios()
        ),
    )
    facts = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    return [rows, "", ratios, "", *result.notes, f"machine: {facts}"]


def _finish(ctx: typer.Context, result: Result, plot: Path | None) -> None:
    if plot is not None:
        from hybrid.bench.plot import draw

        draw(result, plot)
        session(ctx).output.note(f"the latency CDF is in {plot}")
    session(ctx).output.emit(result.as_json(), *_text(result))


@app.command()
def stack(
    ctx: typer.Context,
    rounds: Rounds = 100,
    batches: Annotated[
        int,
        typer.Option("--batches", min=1, max=100_000, help="Samples a round, each the mean of 64 segments."),
    ] = 100,
    core: Annotated[
        int | None, typer.Option("--core", min=0, max=1023, help="Where to run; by default the last core.")
    ] = None,
    instructions: Annotated[
        bool, typer.Option("--instructions", help="Count instructions per segment as well, with valgrind.")
    ] = False,
    plot: Plot = None,
) -> None:
    """Our stack and lwIP alone: crafted segments in, no kernel and no wire. Needs no privilege."""
    from hybrid.bench import plot as plotting
    from hybrid.bench import stack as bench

    if plot is not None:
        plotting.check(plot)
    options = bench.Options(rounds=rounds, batches=batches, core=core, instructions=instructions)
    _finish(ctx, bench.run(options, session(ctx).output.note), plot)


@app.command()
def rtt(
    ctx: typer.Context,
    rounds: Rounds = 25,
    count: Annotated[
        int, typer.Option("--count", min=1, max=1_000_000, help="Round trips that are measured in each turn.")
    ] = 2000,
    mode: Annotated[
        Mode, typer.Option("--mode", help="How XDP programs attach; generic is the faster one on veth.")
    ] = Mode.GENERIC,
    busy_poll: Annotated[
        bool, typer.Option("--busy-poll", help="Ask for SO_PREFER_BUSY_POLL on every AF_XDP socket.")
    ] = False,
    lab: Annotated[
        str, typer.Option("--lab", metavar="NAME", help="How the names of the labs begin that this makes.")
    ] = "bench",
    plot: Plot = None,
) -> None:
    """Round trips of 64 B: our stack beside the kernel's TCP, and beside AF_XDP with no stack. Needs root."""
    from hybrid.bench import plot as plotting
    from hybrid.bench import rtt as bench

    if plot is not None:
        plotting.check(plot)
    client_core, server_core = bench.two_cores()
    options = bench.Options(
        rounds=rounds,
        count=count,
        lab=lab,
        mode=mode.value,
        busy_poll=busy_poll,
        client_core=client_core,
        server_core=server_core,
    )
    _finish(ctx, bench.run(options, session(ctx).output.note), plot)
