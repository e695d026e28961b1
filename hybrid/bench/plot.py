"""The CDF of a run's latencies or rates, drawn to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hybrid.bench.result import Result, Samples
from hybrid.errors import HybridError, UnsupportedError, UsageError

_POINTS = 2000


def cdf(ordered: Sequence[float], points: int = _POINTS) -> tuple[list[float], list[float]]:
    """At most ``points`` (sample, fraction of samples that do not exceed it) of a sorted sequence.

    Thinned evenly by rank; the smallest and the largest sample are always among them.
    """
    n = len(ordered)
    ranks = range(n) if n <= points else [round(i * (n - 1) / (points - 1)) for i in range(points)]
    return [ordered[r] for r in ranks], [(r + 1) / n for r in ranks]


def check(path: Path) -> None:
    """Says before a long run, not after it, that its picture could not be drawn."""
    try:
        import matplotlib
    except ImportError:
        raise UnsupportedError(
            "--plot needs matplotlib, which is not installed",
            remedy="pip install 'hybrid[plot]'",
        ) from None
    matplotlib.use("Agg")
    known = ("pdf", "png", "svg")
    if path.suffix.lstrip(".").lower() not in known:
        raise UsageError(f"--plot draws {', '.join(known)} files; {path.name} is none of them")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot cannot write {path}: there is no folder {path.absolute().parent}")


def draw(result: Result, path: Path) -> None:
    """One panel per case, one curve per subject; times or rates on a logarithmic axis."""
    check(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    cases: dict[str, list[Samples]] = {}
    for samples in result.samples:
        if samples.unit in result.headline:
            cases.setdefault(samples.case, []).append(samples)
    figure = Figure(figsize=(max(5.0, 4.5 * len(cases)), 4.0), layout="constrained")
    for number, (case, curves) in enumerate(cases.items(), start=1):
        axes = figure.add_subplot(1, len(cases), number)
        for samples in curves:
            xs, ys = cdf(samples.ordered)
            axes.step(xs, ys, where="post", label=f"{samples.subject} (p50 {samples.row().p50:g})")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        # The far tail is told by the table; here it would squeeze what tells the subjects apart.
        shown = [s.row() for s in curves]
        axes.set_xlim(min(s.ordered[0] for s in curves) * 0.95, max(r.p99 for r in shown) * 1.2 or None)
        axes.set_title(case)
        axes.set_xlabel(f"{curves[0].unit}, logarithmic")
        axes.set_ylabel("fraction of samples")
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend(loc="lower right")
    facts = result.machine
    where = f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}"
    figure.suptitle(f"hybrid bench {result.bench}: {where}")
    try:
        figure.savefig(path)
    except OSError as error:
        raise HybridError(f"--plot cannot write {path}: {error.strerror}") from error
