"""A negative errno becomes the exception that a Python program expects, and says what to do next."""

from __future__ import annotations

import errno

import pytest

import hybrid
from hybrid.api.errors import check


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ECONNREFUSED, ConnectionRefusedError),
        (errno.ECONNRESET, ConnectionResetError),
        (errno.EPIPE, BrokenPipeError),
        (errno.ECONNABORTED, ConnectionAbortedError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EAGAIN, BlockingIOError),
        (errno.EADDRINUSE, hybrid.AddressInUseError),
        (errno.EADDRNOTAVAIL, hybrid.AddressNotAvailableError),
        (errno.EHOSTUNREACH, hybrid.UnreachableError),
        (errno.ENETUNREACH, hybrid.UnreachableError),
        (errno.ENOTCONN, hybrid.NotConnectedError),
        (errno.ENOBUFS, hybrid.LimitError),
        (errno.ECANCELED, hybrid.CancelledError),
    ],
)
def test_an_errno_is_raised_as_its_own_kind_with_a_remedy(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        check("push on 3", -number)
    error = caught.value
    assert isinstance(error, hybrid.QueueError)
    assert isinstance(error, OSError)
    assert error.errno == number
    assert error.remedy
    assert str(error).startswith("push on 3: ")


def test_an_errno_without_a_kind_of_its_own_is_still_a_queue_error() -> None:
    with pytest.raises(hybrid.QueueError) as caught:
        check("bind", -errno.EDOM)
    assert caught.value.errno == errno.EDOM


def test_a_result_that_is_no_error_passes_through() -> None:
    assert check("poll", 7) == 7
