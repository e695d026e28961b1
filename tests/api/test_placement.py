"""Which transport carries a queue, as Python sees it."""

from __future__ import annotations

import errno

import pytest

import hybrid
from hybrid import Backend, Placement
from tests.api.conftest import Two

pytestmark = pytest.mark.filterwarnings("ignore:queue .* was never closed:ResourceWarning")


def test_a_queue_is_placed_when_it_is_bound_and_not_before(two: Two) -> None:
    queue = two.a.socket()
    assert queue.backend is Backend.AUTO
    queue.bind(":81")
    assert queue.backend is Backend.BYPASS


def test_insisting_on_a_transport_that_the_shard_does_not_have_is_an_error_and_leaves_no_queue(
    two: Two,
) -> None:
    with pytest.raises(hybrid.QueueError) as error:
        two.a.socket(backend=Backend.KERNEL)
    assert error.value.errno == errno.ENODEV


def test_a_row_that_makes_no_sense_is_refused(two: Two) -> None:
    with pytest.raises(hybrid.QueueError) as error:
        two.a.place([Placement(80, 79, Backend.BYPASS)])
    assert error.value.errno == errno.EINVAL
    two.a.place([Placement(80, 80, Backend.BYPASS, protocol=6)])
    two.a.place([])


def test_a_device_that_is_taken_out_ends_its_connections_and_no_listener(two: Two) -> None:
    near, far = two.connected()
    pop = near.pop()
    with pytest.raises(hybrid.QueueError) as error:
        two.a.remove_device(99)
    assert error.value.errno == errno.ENODEV
    two.a.remove_device(1)
    assert two.wait(pop).status == -errno.ENETDOWN
    assert far.peer == near.local
