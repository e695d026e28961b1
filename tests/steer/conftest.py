from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybrid.bpf import Steering, ensure_bpffs
from hybrid.bpf.bpffs import netns_inode
from hybrid.bpf.pins import attached

from .lab import Veth, compile_bpf, inside

SOURCES = Path(__file__).parents[2] / "hybrid" / "bpf"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.skip(reason="loading BPF programs wants root"))


@pytest.fixture(scope="module")
def steering() -> Iterator[Steering]:
    """The program, attached to nothing."""
    with Steering.load() as loaded:
        yield loaded


@pytest.fixture
def veth(request: pytest.FixtureRequest) -> Iterator[Veth]:
    """A veth pair in a namespace of its own, which this thread is in for the test."""
    ensure_bpffs()
    pair = Veth(namespace=f"bpf-steer-{os.getpid()}")
    pair.remove()
    pair.make()
    try:
        with inside(pair.namespace):
            inode = netns_inode()
            yield pair
        for pinned in attached():
            if f"{inode}-" in pinned.directory.name:
                pinned.remove()
    finally:
        pair.remove()


@pytest.fixture(scope="session")
def other_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same steering program from another compiler run: other instructions, so another tag."""
    out = tmp_path_factory.mktemp("bpf") / "steer.bpf.o"
    return compile_bpf(SOURCES / "steer.bpf.c", out, "-mcpu=v2")


@pytest.fixture(scope="session")
def foreign_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody else's XDP program: passes everything."""
    folder = tmp_path_factory.mktemp("foreign")
    source = folder / "foreign.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n"
        '__attribute__((section("xdp"), used)) int somebody(struct xdp_md *ctx) { return XDP_PASS; }\n'
        'char _license[] __attribute__((section("license"), used)) = "GPL";\n'
    )
    return compile_bpf(source, folder / "foreign.bpf.o")


@pytest.fixture(scope="session")
def empty_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same maps, and a program that does nothing: what a run costs whatever it runs."""
    folder = tmp_path_factory.mktemp("empty")
    source = folder / "empty.bpf.c"
    source.write_text(
        "#define hybrid_steer set_aside\n"
        f'#include "{SOURCES}/steer.bpf.c"\n'
        "#undef hybrid_steer\n"
        'SEC("xdp") int hybrid_steer(struct xdp_md *ctx) { return XDP_PASS; }\n'
    )
    return compile_bpf(source, folder / "steer.bpf.o", "-mcpu=v3")
