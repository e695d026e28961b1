"""A policy file: every mistake is found, at its place, in one reading."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from hybrid.errors import PolicyError, UsageError
from hybrid.policy import PolicyFileError, PolicyModel, compile_policy, load, loads
from hybrid.policy.model import InterfaceModel, MatchModel, RuleModel

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples/policies").glob("*.yaml"))


def policy(*rules: str, interface: str = "strict: false") -> str:
    """A policy of one interface, its own key in line 4, these rules in flow style from line 6 on."""
    lines = "".join(f"\n      - {{{rule}}}" for rule in rules)
    return f"version: 1\ninterfaces:\n  - name: hys0\n    {interface}\n    rules:{lines or ' []'}\n"


def rule(match: str, to: str = "afxdp", name: str = "r", more: str = "") -> str:
    """A rule. An "@" in front of the match puts the caret before its brace."""
    opening = "^{" if match.startswith("@") else "{"
    return f"name: {name}, match: {opening}{match.removeprefix('@')}}}, to: {to}{more}"


def problems(text: str | bytes) -> list[tuple[int, int, str, str]]:
    """(line, column, message, expected) of each."""
    with pytest.raises(PolicyFileError) as caught:
        loads(text.encode() if isinstance(text, str) else text, "p.yaml")
    return [(p.position.line, p.position.column, p.message, p.expected) for p in caught.value.problems]


def only(text: str | bytes) -> tuple[int, int, str, str]:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_valid(path: Path) -> None:
    assert compile_policy(load(path)).interfaces


@pytest.mark.parametrize(
    "model", [PolicyModel, InterfaceModel, RuleModel, MatchModel], ids=lambda model: model.__name__
)
def test_every_key_is_described_in_the_document_and_beside_the_model(model: type[BaseModel]) -> None:
    document = (ROOT / "docs/policy.md").read_text()
    for name, field in model.model_fields.items():
        key = field.alias or name
        assert f"| `{key}` |" in document
        assert f"``{key}``" in (model.__doc__ or "")


def test_an_error_shows_the_line_a_caret_and_what_was_expected() -> None:
    with pytest.raises(PolicyFileError) as caught:
        loads(policy(rule("prot: tcp, source: 10.0.0.1", "kernel")).encode(), "p.yaml")
    assert str(caught.value).splitlines() == [
        "p.yaml is not a valid policy: 1 problem",
        "p.yaml:6:27: unknown key 'prot' in match",
        "          - {name: r, match: {prot: tcp, source: 10.0.0.1}, to: kernel}",
        "                              ^",
        "    expected: protocol, source, destination or destination_port; did you mean 'protocol'?",
    ]
    assert caught.value.remedy == "correct the file; docs/policy.md describes every key"


# A caret stands before the place that is to be named; it is not part of the text.
CASES = {
    "unknown key": (
        policy("name: r, ^macth: {protocol: tcp}, match: {protocol: udp, destination_port: 9}, to: drop"),
        "unknown key 'macth' in this rule", "did you mean 'match'?",
    ),
    "unknown key of the interface": (
        policy(interface="^coppy: auto"),
        "unknown key 'coppy' in this interface", "did you mean 'copy'?",
    ),
    "unknown target": (
        policy(rule("protocol: tcp, destination_port: 80", "^afxpd")),
        "'afxpd' is not a value of 'to'", "bypass, uring, kernel or drop; did you mean 'afxdp'?",
    ),
    "unknown mode": (
        policy(interface="mode: ^nativ"),
        "'nativ' is not a value of 'mode'", "auto, native or generic; did you mean 'native'?",
    ),
    "unknown copy mode": (
        policy(interface="copy: ^zerocopy"),
        "'zerocopy' is not a value of 'copy'", "did you mean 'zero-copy'?",
    ),
    "missing key": (
        policy("^").replace("{^}", "^{name: r, match: {protocol: tcp, destination_port: 80}}"),
        "this rule has no 'to'", "to: afxdp, dpdk, bypass, uring, kernel or drop",
    ),
    "missing version": (
        "^interfaces:\n  - {name: a, rules: []}\n", "the policy has no 'version'", "version: 1",
    ),
    "other version": (
        "version: ^2\ninterfaces:\n  - {name: a, rules: []}\n",
        "'2' is not a version of policies that this program knows", "version: 1",
    ),
    "version as a truth value": (
        "version: ^true\ninterfaces:\n  - {name: a, rules: []}\n",
        "true is not a version of policies that this program knows", "version: 1",
    ),
    "no of YAML 1.1": (
        policy(interface="busy_poll: ^no"), "'no' is neither true nor false", "false",
    ),
    "text for a number": (
        policy(rule("protocol: tcp, destination_port: 80", more=", priority: ^high")),
        "'high' is not a value of 'priority'", "a whole number from 1 to 1000000",
    ),
    "priority out of range": (
        policy(rule("protocol: tcp, destination_port: 80", more=", priority: ^0")),
        "'0' is not a value of 'priority'", "a whole number from 1 to 1000000",
    ),
    "number for a name": (
        policy(rule("protocol: tcp, destination_port: 80", name="^6379")),
        "'6379' is not a text", "in quotes",
    ),
    "bad rule name": (
        policy(rule("protocol: tcp, destination_port: 80", name='^"a b"')),
        "'a b' cannot be the name of a rule", "1 to 63",
    ),
    "bad interface name": (
        "version: 1\ninterfaces:\n  - {name: ^much-too-long-for-it, rules: []}\n",
        "cannot be the name of an interface", "1 to 15 characters",
    ),
    "rules not a list": (
        "version: 1\ninterfaces:\n  - {name: a, rules: ^{}}\n",
        "'rules' is a mapping, not a list", "may be empty",
    ),
    "interface not a mapping": (
        "version: 1\ninterfaces:\n  - ^hys0\n", "this interface is 'hys0', not a mapping", "name, mode",
    ),
    "policy not a mapping": ("^- 1\n", "the policy is a list, not a mapping", "version, interfaces"),
    "no interfaces": (
        "version: 1\ninterfaces: ^[]\n", "'interfaces' has 0 items", "1 to 16 interfaces",
    ),
    "key without a value": (
        policy(rule("^protocol: , destination_port: 80")),
        "'protocol' has no value", "a value, or no such key",
    ),
    "duplicate key": (
        policy(rule("protocol: tcp, destination_port: 80, ^protocol: udp")),
        "the key 'protocol' stands here twice (first in line 6)", "each key once",
    ),
    "octal port": (
        policy(rule("protocol: tcp, destination_port: ^0808")),
        "'0808' is one number to some readers of YAML", "write 808",
    ),
    "hexadecimal port": (
        policy(rule("protocol: tcp, destination_port: ^0x50")),
        "'0x50' is one number to some readers of YAML", "decimal digits",
    ),
    "port 0": (policy(rule("protocol: tcp, destination_port: ^0")), "0 is not a port", "1 to 65535"),
    "port 65536": (
        policy(rule("protocol: tcp, destination_port: ^65536")), "65536 is not a port", "1 to 65535",
    ),
    "negative port": (
        policy(rule("protocol: tcp, destination_port: ^-1")), "'-1' is not a port", "one port such as",
    ),
    "port as a truth value": (
        policy(rule("protocol: tcp, destination_port: ^true")), "true is not a port", "one port such as",
    ),
    "reversed range": (
        policy(rule("protocol: tcp, destination_port: ^90-80")),
        "the range 90-80 is reversed, so it is empty", '"80-90"',
    ),
    "list of ports": (
        policy(rule('protocol: tcp, destination_port: ^"80,443"')),
        "'80,443' is a list of ports", "one rule for each",
    ),
    "port without protocol": (
        policy(rule("destination_port: ^80")),
        "rule 'r' names a port without a protocol", "protocol: tcp or protocol: udp",
    ),
    "empty match": (policy(rule("@")), "rule 'r' names nothing to match", "at least one of"),
    "host bits": (
        policy(rule("protocol: tcp, source: ^10.1.2.3/8, destination_port: 80")),
        "10.1.2.3/8 has bits set beyond its prefix length", "10.0.0.0/8 for the whole network, or 10.1.2.3",
    ),
    "prefix too long": (
        policy(rule("protocol: tcp, source: ^10.0.0.0/33, destination_port: 80")),
        "/33 is too long for an IPv4 prefix", "/0 to /32",
    ),
    "not a prefix": (
        policy(rule("protocol: tcp, source: ^10.0.0, destination_port: 80")),
        "'10.0.0' is not a prefix", "10.0.0.0/8",
    ),
    "a float for a prefix": (
        policy(rule("protocol: tcp, source: ^10.1, destination_port: 80")),
        "'10.1' is not a prefix", "in quotes",
    ),
    "a zone": (
        policy(rule('protocol: tcp, source: ^"fe80::1%eth0", destination_port: 80')),
        "'fe80::1%eth0' has a zone", "without '%'",
    ),
    "two families": (
        policy(rule('protocol: tcp, source: 10.0.0.0/8, destination: ^"fd00::/8", destination_port: 80')),
        "its source is IPv4 and its destination IPv6", "two prefixes of one family",
    ),
    "queue out of range": (policy(interface="queues: ^[0, 64]"), "'64' is not a queue", "0 to 63"),
    "queue twice": (policy(interface="queues: ^[1, 1]"), "queue 1 is named twice", "each queue once"),
    "no queues": (policy(interface="queues: ^[]"), "does not say which queues", "all, or a list"),
    "interface twice": (
        "version: 1\ninterfaces:\n  - {name: a, rules: []}\n  - {name: ^a, rules: []}\n",
        "interface a stands in this policy twice", "one entry",
    ),
    "name twice": (
        policy(rule("protocol: tcp, destination_port: 80"),
               rule("protocol: tcp, destination_port: 81", name="^r")),
        "two rules are called 'r'", "a name of its own",
    ),
    "shadowed": (
        policy(rule("protocol: tcp, destination_port: 80-90", name="wide"),
               rule("protocol: tcp, source: 10.0.0.0/8, destination_port: 85", "kernel", "^narrow")),
        "rule 'narrow' never takes a frame: rule 'wide' (priority 1000) is tried before it",
        "a narrower 'wide'",
    ),
    "overlapping": (
        policy(rule("protocol: tcp, source: 10.0.0.0/8", "kernel", "a", ", priority: 7"),
               rule("protocol: tcp, destination_port: 80", "drop", "^b", ", priority: 7")),
        "rules 'b' and 'a' overlap: a frame can match both, both have priority 7", "a different priority",
    ),
    "RoCE": (
        policy(rule("protocol: udp, destination_port: ^4791")), "takes UDP port 4791", "another port",
    ),
    "SSH by port": (
        policy(rule("@protocol: tcp, destination_port: 22")),
        "rule 'r' takes SSH (TCP port 22) from the kernel", "allow_everything: true",
    ),
    "SSH within a range": (
        policy(rule("@protocol: tcp, destination_port: 1-1024", "drop")), "takes SSH", "without 22",
    ),
    "all of TCP": (policy(rule("@protocol: tcp")), "takes SSH (TCP port 22)", "allow_everything: true"),
    "unknown device": (
        policy(interface="device: ^dpkd"), "'dpkd' is not a value of 'device'", "did you mean 'dpdk'?",
    ),
    "unknown way to DPDK": (
        policy(interface="device: dpdk\n    dpdk: {via: ^vfio}"),
        "'vfio' is not a value of 'via'", "devmap, af_xdp or whole",
    ),
    "unknown key of a section": (
        policy(interface="dpdk: {^lcores: 2}"), "unknown key 'lcores' in dpdk", "via, port or queues",
    ),
    "a TAP without addresses": (
        policy(interface="device: ^tap"), "a TAP device has no address of its own", "tap: {addresses",
    ),
    "an address without its length": (
        policy(interface="device: tap\n    tap: {addresses: [^10.9.0.2]}"),
        "'10.9.0.2' is not an address with a length", "10.0.0.2/24",
    ),
    "a whole NIC that is steered": (
        policy(interface='dpdk: {via: ^whole, port: "0000:01:00.0"}'),
        "a DPDK port via whole has the interface to itself", "device: dpdk",
    ),
    "a whole NIC without a name": (
        policy(interface="device: dpdk\n    dpdk: ^{via: whole}"), "has no default port", "its devargs",
    ),
    "a bypass that is not there": (
        policy(rule("protocol: tcp, destination_port: 80", "^afxdp"), interface="device: packet"),
        "rule 'r' says afxdp, and the device of hys0 is packet", "to: bypass",
    ),
    "a drop that nobody does": (
        policy(rule("protocol: tcp, destination_port: 80", "^drop"), interface="device: packet"),
        "no steering program runs on hys0", "device: afxdp",
    ),
    "a fallback of nothing": (
        policy(rule("protocol: tcp, destination_port: 80", "uring", more=", fallback: ^kernel")),
        "uring is nothing to fall back from", "a bypass such as",
    ),
    "unknown fallback": (
        policy(rule("protocol: tcp, destination_port: 80", more=", fallback: ^kernal")),
        "'kernal' is not a value of 'fallback'", "did you mean 'kernel'?",
    ),
    "an EAL argument that is none": (
        "version: 1\ndpdk: {eal: [^\"\"]}\ninterfaces:\n  - {name: a, rules: []}\n",
        "cannot be handed to DPDK", "printable",
    ),
    "two documents": ("a: 1\n^---\nb: 2\n", "a second document begins here", "one policy in a file"),
    "alias": ("a: ^&x [1]\nb: *x\n", "anchors and aliases", "the value itself"),
    "tag": ("a: ^!!python/object:os.system x\n", "tags (", "the value alone"),
    "bad YAML": ("a: [1\nb^: 2\n", "this is not YAML: while parsing a flow sequence", "keys to values"),
    "tab": ("a:\n^\tb: 1\n", "this is not YAML", "keys to values"),
    "empty": ("", "the file is empty", "version and interfaces"),
    "only a comment": ("^# nothing\n", "the file is empty", "version and interfaces"),
    "nothing but null": ("^~\n", "there is no policy here", "version and interfaces"),
    "complex key": ("? ^[a]\n: 1\n", "a key is not a plain word", "key: value"),
    "control character": ("version: 1\nna^\x00me: 1\n", "character U+0000 cannot stand in YAML", "printable"),
    "too deep": ("[" * 17 + "^[[[[", "nested more than 16 deep", "6 deep"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_found_at_its_place_and_says_what_is_right(case: str) -> None:
    marked, message, expected = CASES[case]
    before, _, after = marked.partition("^")
    line, column, said, right = only(before + after)
    assert message in said
    assert expected in right
    assert (line, column) == (before.count("\n") + 1, len(before) - before.rfind("\n")) if after else (1, 1)


def test_a_byte_that_is_not_utf_8_is_named_with_its_place() -> None:
    assert only(b"version: 1\nna\xffme: 1\n") == (2, 3, "byte 0xff is not UTF-8", "text in UTF-8")


def test_all_mistakes_of_a_file_are_told_at_once_in_order() -> None:
    text = policy(
        rule("protocol: tpc, destination_port: 80", name="a"),
        rule("protocol: tcp, destination_port: 99999", name="b"),
        rule("protocol: tcp", name="c"),
        interface="mode: fast",
    )
    found = problems(text)
    assert [line for line, *_ in found] == [4, 6, 7, 8]
    assert "SSH" in found[-1][2], "whole rules are checked though others are broken"


def test_the_json_form_has_each_problem() -> None:
    with pytest.raises(PolicyFileError) as caught:
        loads(policy(interface="mode: fast").encode(), "p.yaml")
    (problem,) = caught.value.as_dict()["problems"]
    assert (problem["line"], problem["column"]) == (4, 11)


@pytest.mark.parametrize(
    "rules",
    [
        [rule("protocol: tcp", more=", allow_everything: true")],
        [rule("protocol: tcp, destination_port: 22", "kernel", "ssh"), rule("protocol: tcp", name="rest")],
        [rule("protocol: udp, destination_port: 4000-5000")],
        [rule("protocol: tcp, destination_port: 22", "kernel")],
    ],
    ids=["meant", "SSH kept by a rule before it", "RoCE within a range", "left to the kernel"],
)
def test_rules_that_lock_nobody_out_are_accepted(rules: list[str]) -> None:
    assert loads(policy(*rules).encode())


def test_a_kernel_rule_for_some_sources_does_not_keep_ssh_for_all() -> None:
    some = rule("protocol: tcp, source: 10.0.0.0/8, destination_port: 22", "kernel", "some")
    assert "SSH" in only(policy(some, rule("protocol: tcp", name="rest")))[2]


def test_words_of_yaml_1_1_are_texts_where_a_text_is_wanted() -> None:
    assert loads(policy(rule("protocol: tcp, destination_port: 80", name="no")).encode())


def test_a_file_that_is_too_large_is_refused_unread() -> None:
    assert "262145 bytes" in only(b"#" * 262145)[2]


def test_more_rules_than_the_kernel_side_holds_are_refused() -> None:
    rules = [rule(f"protocol: udp, destination_port: {1000 + n}", name=f"r{n}") for n in range(257)]
    assert "'rules' has 257 items" in only(policy(*rules))[2]
    assert loads(policy(*rules[:256]).encode())


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path: Path, what: str) -> None:
    path = tmp_path / "none.yaml" if what == "missing" else tmp_path
    with pytest.raises(UsageError) as caught:
        load(path)
    assert caught.value.exit_code == 2
    assert str(path) in caught.value.message


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PolicyError):
        load(tmp_path / "fifo")


HOSTILE = {
    "flow nesting": b"[" * 200_000,
    "block nesting": b"- " * 100_000,
    "aliases": b"a: &a [x,x]\n" + b"".join(b"b%d: [*a,*a]\n" % n for n in range(9000)),
    "many keys": b"".join(b"k%d: 1\n" % n for n in range(30_000)),
    "one long word": b"a" * 262_000,
    "long number": b"version: " + b"9" * 200_000,
    "digits and underscores": b"version: " + b"1_" * 100_000,
    "equal rules": policy(*[rule("protocol: tcp", "drop", f"r{n}") for n in range(256)]).encode(),
    "quotes": b'"' * 200_001,
    "question marks": b"? " * 100_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_in_bounded_time(kind: str) -> None:
    started = time.process_time()
    with pytest.raises(PolicyFileError) as caught:
        loads(HOSTILE[kind])
    assert time.process_time() - started < 10
    assert len(str(caught.value)) < 100_000


@settings(max_examples=250, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_give_a_policy_or_a_policy_error(data: bytes) -> None:
    try:
        loads(data)
    except PolicyFileError as error:
        assert error.problems


KEYS = ("version", "interfaces", "name", "rules", "match", "to", "protocol", "source", "destination",
        "destination_port", "priority", "mode", "copy", "queues")  # fmt: skip
SCALARS = ("tcp", "udp", "afxdp", "kernel", "drop", "all", "auto", "1", "0", "-1", "22", "6379", "80-90",
           "10.0.0.0/8", "fd00::/8", "10.0.0.1/8", "hys0", "true", "no", "~")  # fmt: skip
WORDS = st.sampled_from(KEYS + SCALARS)
VALUES = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]"),
        st.lists(st.tuples(WORDS, inner), max_size=5).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items) + "}"
        ),
    ),
    max_leaves=25,
)


@settings(max_examples=250, deadline=None)
@given(VALUES, VALUES)
def test_any_shape_gives_a_policy_or_a_policy_error(head: str, body: str) -> None:
    for text in (body, f"version: 1\ninterfaces: {body}", policy(f"name: r, match: {head}, to: {body}")):
        try:
            compile_policy(loads(text.encode()))
        except PolicyFileError as error:
            assert error.problems
