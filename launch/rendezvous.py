"""Where the machines of a job meet: an address that resolves, a port that is free, a store that is this job's own."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # noqa: TID251  # the agent's own store, before any rank exists

LOWEST_PORT = 20000
ANSWER_S = 2.0
"""How long a service may take to say what it is."""


def candidate_ports(seed: str, count: int = 16) -> tuple[int, ...]:
    """Ports below the kernel's ephemeral range, in an order that depends only on the seed."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
            end = int(f.read().split()[0])
    except OSError:
        end = 32768
    if end - LOWEST_PORT < 100 * count:  # a machine whose ephemeral range starts low
        end = 32768
    return tuple(random.Random(seed).sample(range(LOWEST_PORT, end), count))


def free_first(ports: tuple[int, ...]) -> tuple[int, ...]:
    """The same ports, those that can now be bound on this machine first."""

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
    """Whether this machine can resolve the name."""
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def open_store(ports: Sequence[int]) -> tuple[TCPStore, int]:
    """Open a store on the first port that can be bound; a port in use fails immediately and the next is tried.

    The store must be kept as long as the agents use it.
    """
    from torch.distributed import TCPStore  # noqa: TID251

    for port in ports:
        try:
            store = TCPStore("localhost", port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
        except (RuntimeError, ValueError):
            print(f"agent: port {port} is in use, trying the next", flush=True)
            continue
        return store, store.port
    raise RuntimeError(f"none of the ports {', '.join(map(str, ports))} can be bound on this machine")


def announce(ports: Sequence[int], token: str, store_port: int) -> socket.socket:
    """Tell whoever connects to the first free port which job this is and where its store is.

    Agents find the store this way since torch's own client waits forever for a foreign service that stays silent, and joins
    a foreign store without complaint. The socket must be kept; closing it ends the announcement.
    """
    for port in ports:
        try:
            server = socket.create_server(("", port), backlog=1024)
        except OSError:
            continue
        threading.Thread(target=_answer, args=(server, f"{token} {store_port}\n".encode()), daemon=True).start()
        return server
    raise RuntimeError(f"none of the ports {', '.join(map(str, ports))} can be bound on this machine")


def _answer(server: socket.socket, line: bytes) -> None:
    while True:
        try:
            with server.accept()[0] as connection:
                connection.sendall(line)
        except OSError:
            if server.fileno() < 0:
                return


def find_store(
    address: str, ports: Sequence[int], token: str, timeout_s: float = 600.0, say: Callable[[str], None] | None = None
) -> int:
    """The port of the job's own store. Foreign stores and services on the candidate ports are skipped.

    Args:
        say: takes a line every 10 s while the store is not there.
    """
    began = reported = time.monotonic()
    while (now := time.monotonic()) < began + timeout_s:
        if say and now > reported + 10:
            reported = now
            say(f"waiting for the store of this job on {address}, ports {', '.join(map(str, ports[:3]))} …")
        for port in ports:
            owner, _, store_port = _ask(address, port).strip().rpartition(" ")
            if owner == token and store_port.isdigit():
                return int(store_port)
        time.sleep(0.2)
    raise RuntimeError(f"found no store of this job on {address} after {timeout_s:.0f} s, ports {', '.join(map(str, ports))}")


def _ask(address: str, port: int) -> str:
    """The line that a service sends unasked within `ANSWER_S`; empty where there is none."""
    try:
        with socket.create_connection((address, port), timeout=ANSWER_S) as connection:
            return connection.makefile(errors="replace").readline(200)
    except OSError:
        return ""


def leave(store: TCPStore, me: str, wait_for: Sequence[str], timeout_s: float = 15.0) -> None:
    """Report that this machine no longer needs the store, and wait until the others in `wait_for` do not either."""
    try:
        store.set(f"left/{me}", "")
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and not store.check([f"left/{other}" for other in wait_for]):
            time.sleep(0.1)
    except RuntimeError:  # the machine with the store is gone
        return
