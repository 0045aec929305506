"""Where the machines of a job meet: an address that resolves, a port that is free, a store that is this job's own."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # noqa: TID251  # the agent's own store, before any rank exists

LOWEST_PORT = 20000


def candidate_ports(seed: str, count: int = 16) -> tuple[int, ...]:
    """Ports below the kernel's ephemeral range, in an order that depends on the seed only."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
            end = int(f.read().split()[0])
    except OSError:
        end = 32768
    if end - LOWEST_PORT < 100 * count:  # a machine whose ephemeral range starts low
        end = 32768
    return tuple(random.Random(seed).sample(range(LOWEST_PORT, end), count))


def free_first(ports: tuple[int, ...]) -> tuple[int, ...]:
    """The same ports, those that can be bound on this machine now before those that cannot."""

    def taken(port: int) -> bool:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("", port))
            except OSError:
                return True
        return False

    return tuple(sorted(ports, key=taken))


def resolves(name: str) -> bool:
    """Whether this machine can look the name up."""
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def host_store(ports: tuple[int, ...], token: str) -> tuple[TCPStore, int]:
    """Open the job's store on the first port that can be bound; a taken one fails at once and the next is tried.

    The store must be kept for as long as the agents meet in it.
    """
    from torch.distributed import TCPStore  # noqa: TID251

    for port in ports:
        try:
            store = TCPStore("localhost", port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
        except (RuntimeError, ValueError) as e:
            print(f"agent: port {port} is taken ({str(e).splitlines()[0][:120]}); trying the next", flush=True)
            continue
        store.set("ddptrain", token)
        return store, store.port
    raise RuntimeError(f"none of the ports {', '.join(map(str, ports))} can be bound on this machine")


def find_store(address: str, ports: tuple[int, ...], token: str, timeout_s: float = 600.0) -> tuple[TCPStore, int]:
    """The job's own store and its port. A foreign store or service on a candidate port is passed over."""
    from torch.distributed import TCPStore  # noqa: TID251

    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for port in ports:
            if not _listens(address, port):
                continue
            try:
                store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))
                if store.check(["ddptrain"]) and store.get("ddptrain").decode() == token:
                    return store, port
            except (RuntimeError, ValueError):
                continue
        time.sleep(0.2)
    raise RuntimeError(f"no store of this job on {address} after {timeout_s:.0f} s, ports {', '.join(map(str, ports))}")


def leave(store: TCPStore, me: str, wait_for: Sequence[str], timeout_s: float = 15.0) -> None:
    """Say that this machine needs the store no more, and wait until the others in `wait_for` do not either."""
    try:
        store.set(f"left/{me}", "")
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and not store.check([f"left/{other}" for other in wait_for]):
            time.sleep(0.1)
    except RuntimeError:  # the machine that holds it has gone
        return


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5):
            return True
    except OSError:
        return False
