"""``hybrid bench``: the peers beside us in the same run, in turns, and the ratio."""

from __future__ import annotations

from collections.abc import Callable
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


def _figure(value: float, unit: str) -> str:
    """Rates are in the thousands, times and counts below."""
    return f"{value:,.0f}" if unit.startswith("requests/") else f"{value:.2f}"


def _text(result: Result) -> list[RenderableType]:
    """Rows, ratios with what is aimed at, and the sentences that belong to them."""
    rows = table(
        ["case", "subject", ">p50", ">p99", ">p999", "unit", ">n"],
        (
            (r.case, r.subject, *(_figure(value, r.unit) for value in (r.p50, r.p99, r.p999)), r.unit, r.n)
            for r in result.rows()
        ),
    )
    aims = {(aim.case, aim.subject, aim.versus): aim for aim in result.aims}
    told = [(r, aims[r.case, r.subject, r.versus]) for r in result.ratios()]
    ratios = table(
        ["ratio of p50", "case", ">value", ">aim", ""],
        (
            (f"{r.subject} / {r.versus}", r.case, f"{r.value:.2f}", str(aim), aim.verdict(r.value))
            for r, aim in told
        ),
    )
    facts = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    return [rows, "", ratios, "", *result.notes, f"machine: {facts}"]


def _measure(ctx: typer.Context, plot: Path | None, run: Callable[[Callable[[str], None]], Result]) -> None:
    """Runs it, with whether it can be drawn looked at before, and shows what came out."""
    from hybrid.bench import plot as plotting

    if plot is not None:
        plotting.check(plot)
    output = session(ctx).output
    result = run(output.note)
    if plot is not None:
        plotting.draw(result, plot)
        output.note(f"the latency CDF is in {plot}")
    output.emit(result.as_json(), *_text(result))


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
    from hybrid.bench import stack as bench

    options = bench.Options(rounds=rounds, batches=batches, core=core, instructions=instructions)
    _measure(ctx, plot, lambda note: bench.run(options, note))


_Mode = Annotated[
    Mode, typer.Option("--mode", help="How XDP programs attach; generic is the faster one on veth.")
]
_BusyPoll = Annotated[
    bool, typer.Option("--busy-poll", help="Ask for SO_PREFER_BUSY_POLL on every AF_XDP socket.")
]
_Lab = Annotated[
    str, typer.Option("--lab", metavar="NAME", help="How the names of the labs begin that this makes.")
]


@app.command()
def rtt(
    ctx: typer.Context,
    rounds: Rounds = 25,
    count: Annotated[
        int, typer.Option("--count", min=1, max=1_000_000, help="Round trips that are measured in each turn.")
    ] = 2000,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="Measure this backend beside AF_XDP as well; may be given several times.",
            show_default=False,
        ),
    ] = None,
    mode: _Mode = Mode.GENERIC,
    busy_poll: _BusyPoll = False,
    lab: _Lab = "bench",
    plot: Plot = None,
) -> None:
    """Round trips of 64 B: our stack beside the kernel's TCP, and beside AF_XDP with no stack. Needs root."""
    from hybrid.bench import rtt as bench
    from hybrid.bench.backends import two_cores

    client_core, server_core = two_cores()
    options = bench.Options(
        rounds=rounds,
        count=count,
        lab=lab,
        mode=mode.value,
        busy_poll=busy_poll,
        client_core=client_core,
        server_core=server_core,
        backends=tuple(backend or ()),
    )
    _measure(ctx, plot, lambda note: bench.run(options, note))


@app.command()
def throughput(
    ctx: typer.Context,
    rounds: Rounds = 5,
    window: Annotated[
        int, typer.Option("--window", min=20, max=60_000, help="Milliseconds that are measured in each turn.")
    ] = 300,
    case: Annotated[
        list[str] | None,
        typer.Option(
            "--case",
            metavar="NAME",
            help="A case to measure; may be given several times.",
            show_default="all",
        ),
    ] = None,
    connections: Annotated[
        list[int] | None,
        typer.Option(
            "--connections",
            min=1,
            max=64,
            help="How many connections ask at once; may be given several times.",
            show_default="64, then 1",
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="A backend to measure; may be given several times.",
            show_default="all that this host has",
        ),
    ] = None,
    mode: _Mode = Mode.GENERIC,
    busy_poll: _BusyPoll = False,
    at_home: Annotated[
        bool,
        typer.Option(
            "--receive-at-home/--receive-at-sender",
            help="Whose core works for what an end receives: its own (RPS), or the sender's.",
        ),
    ] = True,
    lab: _Lab = "bench",
    plot: Plot = None,
) -> None:
    """Requests per second, and per second of processor time, beside the kernel's TCP. Needs root."""
    from hybrid.bench import throughput as bench
    from hybrid.bench.backends import two_cores

    client_core, server_core = two_cores()
    options = bench.Options(
        rounds=rounds,
        window_ms=window,
        cases=tuple(case or bench.CASES),
        connections=tuple(dict.fromkeys(connections or bench.CONNECTIONS)),
        backends=tuple(backend or ()),
        lab=lab,
        mode=mode.value,
        busy_poll=busy_poll,
        at_home=at_home,
        client_core=client_core,
        server_core=server_core,
    )
    _measure(ctx, plot, lambda note: bench.run(options, note))
