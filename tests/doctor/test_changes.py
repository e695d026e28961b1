"""Changes of the host's settings: written down first, put back last first, and never over somebody else's."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybrid.agent.changes import Change, Journal, Undone
from hybrid.agent.settings import Affinity, Hugepages, Offload, as_dict, from_dict
from hybrid.agent.state import Namespace
from hybrid.devices import ethtool
from hybrid.devices.interfaces import Interface
from hybrid.devices.interrupts import Interrupt
from hybrid.doctor import Outcome
from hybrid.doctor.stages import Wanted, channels, hugepages, irq, stage
from hybrid.errors import HybridError

HERE = Namespace(1, 2, "this boot")
IRQ = Affinity(38, "virtio2-input.0")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with two nodes without hugepages, and interrupts 38 and 39 that may go anywhere."""
    made = tmp_path / "root"
    write(made / "proc/meminfo", "MemTotal: 1 kB\nHugepagesize:       2048 kB\n")
    for node in (0, 1):
        folder = made / f"sys/devices/system/node/node{node}/hugepages/hugepages-2048kB"
        for name in ("nr_hugepages", "free_hugepages", "surplus_hugepages"):
            write(folder / name, "0\n")
    for queue, number in enumerate((38, 39)):
        write(made / f"proc/irq/{number}/smp_affinity_list", "0-7\n")
        write(made / f"sys/kernel/irq/{number}/actions", f"virtio2-input.{queue}\n")
    return made


@pytest.fixture
def journal(tmp_path: Path, root: Path) -> Journal:
    return Journal(tmp_path / "run", root)


def make(journal: Journal, setting: Affinity | Hugepages, value: str) -> Change:
    change = journal.make(setting, value, HERE)
    assert change is not None
    return change


def test_a_change_is_remembered_and_put_back(journal: Journal) -> None:
    made = make(journal, IRQ, "3")
    assert (made.before, made.requested, made.obtained) == ("0-7", "3", "3")
    assert IRQ.read(journal.root) == "3"
    assert journal.changes() == [made]
    assert journal.undo(made) is Undone.RESTORED
    assert IRQ.read(journal.root) == "0-7"
    assert journal.changes() == []


def test_what_has_the_value_already_is_not_ours(journal: Journal) -> None:
    assert journal.make(IRQ, "0-7", HERE) is None
    assert journal.changes() == []


def test_several_changes_of_one_setting_are_put_back_in_reverse(journal: Journal) -> None:
    for value in ("1", "2"):
        make(journal, IRQ, value)
    assert [journal.undo(change) for change in reversed(journal.changes())] == [Undone.RESTORED] * 2
    assert IRQ.read(journal.root) == "0-7"


def test_what_somebody_else_has_changed_since_is_left_alone(journal: Journal) -> None:
    made = make(journal, IRQ, "3")
    IRQ.write("5", journal.root)
    assert journal.undo(made) is Undone.THEIRS
    assert IRQ.read(journal.root) == "5"
    assert journal.changes() == []


def test_a_number_that_now_belongs_to_another_device_is_left_alone(journal: Journal) -> None:
    made = make(journal, IRQ, "3")
    write(journal.root / "sys/kernel/irq/38/actions", "nvme0q1\n")
    assert journal.undo(made) is Undone.GONE
    assert (journal.root / "proc/irq/38/smp_affinity_list").read_text() == "3\n"


def test_a_command_killed_right_after_it_changed_something_has_left_word_of_it(journal: Journal) -> None:
    made = make(journal, IRQ, "3")
    journal._write(replace(made, obtained=None))
    (found,) = journal.changes()
    assert found.obtained is None
    assert journal.undo(found) is Undone.RESTORED
    assert IRQ.read(journal.root) == "0-7"


def test_a_command_killed_right_before_it_changed_something_is_nothing_to_put_back(journal: Journal) -> None:
    made = make(journal, IRQ, "3")
    journal._write(replace(made, obtained=None))
    IRQ.write("0-7", journal.root)
    assert journal.undo(journal.changes()[0]) is Undone.RESTORED
    assert IRQ.read(journal.root) == "0-7"


def test_what_was_refused_is_not_remembered(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise HybridError("no")

    monkeypatch.setattr("hybrid.agent.settings.interrupts.set_cores", refuse)
    with pytest.raises(HybridError, match="no"):
        journal.make(IRQ, "3", HERE)
    assert journal.changes() == []


def test_less_obtained_than_requested_is_what_is_compared_later(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Hugepages(2048, 0)
    number = journal.root / "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
    monkeypatch.setattr("hybrid.agent.settings.hugepages.reserve", lambda *_: number.write_text("40\n"))
    made = make(journal, pages, "64")
    assert (made.requested, made.obtained) == ("64", "40")
    monkeypatch.undo()
    assert journal.undo(made) is Undone.RESTORED
    assert number.read_text() == "0\n"


def test_a_file_that_is_not_ours_is_skipped(journal: Journal) -> None:
    made = make(journal, IRQ, "3")
    for number, text in enumerate(
        ("", "[]", "null", json.dumps({"version": 99}), json.dumps({"version": 1}))
    ):
        write(journal.folder / f"{number + 100:06}.json", text)
    assert journal.changes() == [made]


@pytest.mark.parametrize("setting", [IRQ, Hugepages(2048, None), Offload("eth0", 3, "rx-lro")])
def test_a_setting_survives_its_record(setting: Affinity | Hugepages | Offload) -> None:
    assert from_dict(json.loads(json.dumps(as_dict(setting)))) == setting


# -- stages, on a host that is played ------------------------------------------------------


def card(*interrupts: Interrupt, node: int | None = None) -> Interface:
    return Interface(
        name="eth7", ifindex=7, driver="virtio_net", kind=None, device="virtio/virtio2", mtu_bytes=1500,
        up=True, running=True, numa_node=node, channels=None, rss_queues=None, features=None, queues=(), interrupts=interrupts,
        xdp_program=False,
    )  # fmt: skip


def played(monkeypatch: pytest.MonkeyPatch, interface: Interface) -> None:
    for module in (stage, hugepages):
        monkeypatch.setattr(module, "interfaces", lambda root: [interface])


def test_hugepages_are_wanted_on_the_node_of_the_interface(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, card(node=1))
    (found,) = hugepages.check(Wanted(("eth7",), hugepages=5), root)
    assert found.steps == ((Hugepages(2048, 1), "5"),)
    assert found.finding.remedy == "sudo hybrid doctor --fix hugepages --hugepages 5"


def test_hugepages_are_spread_where_no_node_is_nearer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, card())
    steps = [step for found in hugepages.check(Wanted(hugepages=5), root) for step in found.steps]
    assert steps == [(Hugepages(2048, 0), "3"), (Hugepages(2048, 1), "3")]


def test_pages_in_use_are_not_counted_as_free(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, card(node=0))
    folder = root / "sys/devices/system/node/node0/hugepages/hugepages-2048kB"
    write(folder / "nr_hugepages", "10\n")
    write(folder / "free_hugepages", "4\n")
    (enough,) = hugepages.check(Wanted(("eth7",), hugepages=4), root)
    (short,) = hugepages.check(Wanted(("eth7",), hugepages=6), root)
    assert (enough.finding.outcome, enough.steps) == (Outcome.YES, ())
    assert short.steps == ((Hugepages(2048, 0), "12"),)


def test_each_queues_interrupt_goes_to_the_core_of_its_shard(
    root: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    rows = [
        Interrupt(37, "virtio2-config", None, frozenset({0})),
        Interrupt(38, "virtio2-input.0", 0, frozenset(range(8))),
        Interrupt(39, "virtio2-input.1", 1, frozenset(range(8))),
    ]
    played(monkeypatch, card(*rows))
    wanted = Wanted(("eth7",), cores=frozenset({2, 3}))
    (found,) = irq.check(wanted, root)
    assert found.finding.outcome is Outcome.NO
    assert found.steps == ((IRQ, "2"), (Affinity(39, "virtio2-input.1"), "3"))
    for setting, value in found.steps:
        journal.make(setting, value, HERE)
    assert [(root / f"proc/irq/{n}/smp_affinity_list").read_text() for n in (38, 39)] == ["2\n", "3\n"]
    moved = [replace(row, cores=frozenset({row.number - 36})) for row in rows[1:]]
    played(monkeypatch, card(*moved))
    (again,) = irq.check(wanted, root)
    assert (again.finding.outcome, again.steps) == (Outcome.YES, ())
    write(root / "proc/77/comm", "irqbalance\n")
    (watched,) = irq.check(wanted, root)
    assert "irqbalance" in watched.finding.detail


def test_more_queues_than_cores_share_them_in_turn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Interrupt(40 + queue, f"eth7-TxRx-{queue}", queue, frozenset()) for queue in range(4)]
    played(monkeypatch, card(*rows))
    (found,) = irq.check(Wanted(("eth7",), cores=frozenset({4, 6})), root)
    assert [value for _, value in found.steps] == ["4", "6", "4", "6"]


def test_without_cores_to_send_them_to_nothing_is_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, card(Interrupt(38, "virtio2-input.0", 0, frozenset({0}))))
    (found,) = irq.check(Wanted(("eth7",)), root)
    assert (found.finding.outcome, found.steps) == (Outcome.INCONCLUSIVE, ())
    assert "--cores" in (found.finding.remedy or "")


@pytest.mark.parametrize(
    ("queues", "spread", "outcome", "steps"),
    [
        (2, (0, 1), Outcome.YES, 0),
        (2, None, Outcome.YES, 0),
        (2, (0,), Outcome.NO, 0),  # a queue to which no flow goes: the table is whoever's made it
        (4, (0, 1), Outcome.NO, 1),
        (16, (0, 1), Outcome.NO, 0),  # more than there can be
    ],
)
def test_as_many_queues_as_are_served_and_flows_on_all_of_them(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    queues: int,
    spread: tuple[int, ...] | None,
    outcome: Outcome,
    steps: int,
) -> None:
    now = ethtool.Channels(combined=2, rx=0, tx=0, combined_max=8, rx_max=0, tx_max=0)
    played(monkeypatch, replace(card(), channels=now, rss_queues=spread))
    (found,) = channels.check(Wanted(("eth7",), queues=queues), root)
    assert (found.finding.outcome, len(found.steps)) == (outcome, steps)
    assert found.finding.outcome is Outcome.YES or found.finding.remedy


def test_the_queues_of_a_cards_indirection_table_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel, played: first it says how large the table is, then it fills it in."""
    table = [0, 1, 0, 3]

    def ioctl(device: Any) -> None:
        row = ctypes.cast(device.ifreq.gstrings, ctypes.POINTER(ctypes.c_uint32))
        assert row[0] == 0x38
        for slot in range(row[1]):
            row[2 + slot] = table[slot]
        row[1] = len(table)

    monkeypatch.setattr(ethtool.IoctlEthtool, "ioctl", ioctl)
    assert ethtool.rss_queues("lo") == (0, 1, 3)
    monkeypatch.undo()
    assert ethtool.rss_queues("lo") is None
