"""Runs a program with a datapath for one port of one interface: `hybrid apply` and `hybrid serve` in one.

``serve.py INTERFACE PORT PROGRAM [ARGUMENT...]``, inside the namespace of the interface. Prints one
line when the program is in service, and leaves nothing attached.
"""

from __future__ import annotations

import os
import sys

from hybrid.bpf import Steering
from hybrid.bpf.inspect import interface_index
from hybrid.launch.datapath import Datapath, Interface
from hybrid.launch.launcher import InService, Launch
from hybrid.policy.rule import Protocol, Rule, Target


def main() -> int:
    name, port, *command = sys.argv[1:]
    rules = tuple(
        Rule(f"{protocol}-{port}", 1, Target.AFXDP, protocol, ports=(int(port), int(port)))
        for protocol in Protocol
    )
    with Steering.attach(name) as steering:
        try:
            steering.replace_rules(rules)
            mode = str(steering.obtained.mode)
            interface = Interface(name, interface_index(name), (0,), "auto", mode, "", rules)

            def ready(service: InService) -> None:
                print("ready", *service.ports, flush=True)

            with Datapath.open([interface]) as path:
                launch = Launch(
                    command, path, dict(os.environ), ready, lambda text: print(text, file=sys.stderr)
                )
                return launch.run()
        finally:
            steering.detach()


if __name__ == "__main__":
    sys.exit(main())
