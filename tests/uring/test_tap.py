"""What is particular to TAP devices: what was obtained, the interface's end, and failures with their remedy."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from hybrid.lab import Lab
from tests.uring.devices import OUR_MAC, TAP, TAP_ENDS, DeviceApp, failure

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("offload", ["auto", "no", "must"])
def test_what_was_obtained_is_told(lab: Lab, device_app_for: Callable[..., DeviceApp], offload: str) -> None:
    app = device_app_for(lab, "tap", offload=offload)
    assert (app.obtained["name"], app.obtained["offload"]) == (TAP, int(offload != "no"))
    assert app.obtained["deferred"] == 1


def test_a_deleted_interface_ends_its_connections(lab: Lab, device_app_for: Callable[..., DeviceApp]) -> None:
    app = device_app_for(lab, "tap")
    with app.dial("take") as peer:
        peer.send_all(b"x" * 1000)
        port = peer.port
        app.side.run(["ip", "link", "delete", TAP])
        assert app.result(port)["status"] in (-errno.ENETDOWN, -errno.ENODEV)
    assert app.stats()["devices_lost"] == 1
    assert app.stop() == 0


def test_who_has_ended_leaves_the_name_to_the_next(
    lab: Lab, device_app_for: Callable[..., DeviceApp]
) -> None:
    for _ in range(10):
        device_app_for(lab, "tap").leave()


TAP_ARGUMENTS = ("tap", TAP, OUR_MAC, "0", f"{TAP_ENDS.ours[4]}/24")


def test_without_the_privilege_the_remedy_is_told(lab: Lab) -> None:
    told = failure(
        lab, *TAP_ARGUMENTS, wrap=("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    )
    assert told["status"] == -errno.EPERM
    assert "CAP_NET_ADMIN" in str(told["detail"])


def test_without_the_device_file_the_remedy_is_told(lab: Lab) -> None:
    hide = 'mount -t tmpfs none /dev/net && exec "$@"'
    told = failure(lab, *TAP_ARGUMENTS, wrap=("unshare", "-m", "sh", "-c", hide, "sh"))
    assert told["status"] == -errno.ENOENT
    assert "/dev/net/tun" in str(told["detail"])
