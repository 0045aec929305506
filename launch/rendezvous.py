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


def open_store(ports: Sequence[int]) -> tuple[TCPStore, int]:
    """Open a store on the first port that can be bound; a taken one fails at once and the next is tried.

    The store must be kept for as long as the agents meet in it.
    """
    from torch.distributed import TCPStore  # noqa: TID251

    for port in ports:
        try:
            store = TCPStore("localhost", port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
        except (RuntimeError, ValueError):
            print(f"agent: port {port} is taken, trying the next", flush=True)
            continue
        return store, store.port
    raise RuntimeError(f"none of the ports {', '.join(map(str, ports))} can be bound on this machine")


def announce(ports: Sequence[int], token: str, store_port: int) -> socket.socket:
    """Tell everyone who connects to the first free one of the ports which job this is and where its store is.

    Agents look for the store this way since torch's own client waits for ever on a foreign service that says nothing,
    and joins a foreign store without a word. The socket must be kept; closing it ends the announcement.
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
    """The port of the job's own store. Foreign stores and services on the candidate ports are passed over.

    Args:
        say: told every 10 s that the store is waited for.
    """
    began = told = time.monotonic()
    while (now := time.monotonic()) < began + timeout_s:
        if say and now > told + 10:
            told = now
            say(f"waiting for the store of this job on {address}, ports {', '.join(map(str, ports[:3]))} …")
        for port in ports:
            said, _, store_port = _ask(address, port).strip().rpartition(" ")
            if said == token and store_port.isdigit():
                return int(store_port)
        time.sleep(0.2)
    raise RuntimeError(f"no store of this job on {address} after {timeout_s:.0f} s, ports {', '.join(map(str, ports))}")


def _ask(address: str, port: int) -> str:
    """The line that a service says on its own within 2 s; empty where there is none."""
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            return connection.makefile(errors="replace").readline(200)
    except OSError:
        return ""


def leave(store: TCPStore, me: str, wait_for: Sequence[str], timeout_s: float = 15.0) -> None:
    """Say that this machine needs the store no more, and wait until the others in `wait_for` do not either."""
    try:
        store.set(f"left/{me}", "")
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and not store.check([f"left/{other}" for other in wait_for]):
            time.sleep(0.1)
    except RuntimeError:  # the machine that holds it has gone
        return
