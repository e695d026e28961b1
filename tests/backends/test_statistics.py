"""What is counted adds up: with what was done, with what the other side counts, with itself."""

from __future__ import annotations

from collections.abc import Callable

from tests.backends.harness.agent import AgentEnd
from tests.backends.harness.meeting import Meeting

MIB = 1 << 20


class Counting:
    """How much each counter has grown since."""

    def __init__(self, end: AgentEnd) -> None:
        self._end = end
        self._before = end.stats()

    def grown(self) -> dict[str, int]:
        now = self._end.stats()
        return {name: now[name] - was for name, was in self._before.items()}

    def until(self, settled: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Looked at until it holds, for what is counted a moment later; then whatever it is."""
        for _ in range(1000):
            if settled(grown := self.grown()):
                break
        return grown


def transfer(talk: Meeting, role: str, count: int) -> None:
    ours, theirs = talk.meet(role)
    echoed, back = ours.echo(), theirs.pop()
    theirs.push(count).result()
    theirs.shutdown()
    back.result()
    echoed.result()


def test_every_event_is_counted_once(talk: Meeting, role: str) -> None:
    ours, theirs = talk.meet(role)
    counting = Counting(talk.us)
    for _ in range(20):
        popping = ours.pop(1)
        theirs.push(1).result()
        popping.result()
        taken = theirs.pop(1)
        ours.push(1).result()
        taken.result()
    assert counting.grown()["events"] == 40


def test_every_connection_is_counted(talk: Meeting, role: str) -> None:
    if not talk.row.stack:
        return
    counting = Counting(talk.us)
    for _ in range(7):
        talk.meet(role)
    grown = counting.grown()
    assert (grown["tcp_opened_passive"], grown["tcp_opened_active"]) == (
        (7, 0) if role == "server" else (0, 7)
    )


def test_a_frame_that_came_is_a_packet_or_a_drop_with_a_name(talk: Meeting, role: str) -> None:
    if not talk.row.stack:
        return
    counting = Counting(talk.us)
    transfer(talk, role, 2 * MIB)
    counting.until(accounted)
    grown = counting.grown()
    assert accounted(grown), grown


def accounted(grown: dict[str, int]) -> bool:
    """Frames that are ARP alone are counted by no name but their own."""
    not_ip = grown["drop_short"] + grown["drop_ethertype"] + grown["drop_ip_header"]
    not_ip += grown["drop_fragment"] + grown["drop_ip_option"] + grown["drop_mac"]
    asked = grown["arp_answered"] + grown["neighbour_requests"]
    return grown["ip_in"] <= grown["device_rx_frames"] <= grown["ip_in"] + not_ip + 2 * asked


def test_a_clean_transfer_drops_nothing(talk: Meeting, role: str) -> None:
    counting = Counting(talk.us)
    transfer(talk, role, 2 * MIB)
    grown = counting.grown()
    # What the other side says to everybody (neighbour discovery, multicast listeners) is not for us; on a busy
    # machine it may send something again, probe a window that was closed for a moment, or have a last word for a
    # conversation that has ended.
    noise = {"drop_mac", "drop_ethertype", "drop_icmp", "drop_protocol", "drop_not_local", "drop_ip_option"}
    noise |= {"drop_duplicate", "drop_window", "drop_no_socket"}
    assert {
        name: n for name, n in grown.items() if name.startswith("drop_") and n and name not in noise
    } == {}
    assert grown["tcp_resets_in"] == grown["tcp_resets_out"] == 0


def test_the_bytes_are_counted(talk: Meeting, role: str) -> None:
    counting = Counting(talk.us)
    if not talk.row.stack:  # by the kernel's sockets to the byte
        transfer(talk, role, 4 * MIB)
        grown = counting.grown()
        assert (grown["kernel_in_bytes"], grown["kernel_out_bytes"]) == (4 * MIB, 4 * MIB)
        return
    transfer(talk, role, 4 * MIB)
    grown = counting.until(lambda now: min(now["device_tx_bytes"], now["device_rx_bytes"]) >= 4 * MIB)
    for way in ("rx", "tx"):
        assert 4 * MIB <= grown[f"device_{way}_bytes"] < 5 * MIB
        assert grown[f"device_{way}_frames"] >= 4 * MIB // 1460


def test_what_one_side_sends_the_other_receives(talk: Meeting, role: str) -> None:
    """Frames that left and frames that came, by the counters of both sides."""
    if not isinstance(talk.them, AgentEnd) or not talk.row.stack:
        return
    us, them = Counting(talk.us), Counting(talk.them)
    transfer(talk, role, 2 * MIB)

    def lost(ours: dict[str, int]) -> tuple[int, int]:
        theirs = them.grown()
        out = theirs["device_rx_frames"] + theirs["device_rx_dropped"] - ours["device_tx_frames"]
        back = ours["device_rx_frames"] + ours["device_rx_dropped"] - theirs["device_tx_frames"]
        return out, back

    assert lost(us.until(lambda now: lost(now) == (0, 0))) == (0, 0)
