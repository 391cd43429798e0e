"""Serve the studio on this machine, and open it in the browser."""

import contextlib
import secrets
import socket
import webbrowser
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import uvicorn

from samgan.errors import SamganError, UsageError, first_line
from samgan.studio.app import make_app
from samgan.studio.places import Root
from samgan.studio.worker import Worker
from samgan.terminal import say

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Address:
    """Where the studio listens."""

    host: str
    """An IP address."""
    port: int

    @property
    def names(self) -> tuple[str, ...]:
        """What browsers call it; the first is for links. They write the shortest form, without the port if it is 80."""
        address = _meant(self.host)
        own = f"[{address}]" if address.version == 6 else str(address)
        names = (own, "localhost") if address.is_loopback else (own,)
        return (*(f"{name}:{self.port}" for name in names), *(names if self.port == 80 else ()))


def serve(root: Root, *, host: str = LOOPBACK, port: int = 0, read_only: bool = False, browser: bool = True) -> None:
    """Serve the studio until it is told to stop (Ctrl-C); what it has started goes on.

    Args:
        root: The folder to show.
        host: The address to listen on, one of this machine.
        port: The port; 0: any that is free.
        read_only: Whether to refuse everything but looking.
        browser: Whether to open it in the browser.

    Raises:
        UsageError: `host` is no address, or stands for all addresses.
        SamganError: The port is in use.
    """
    with _listen(host, port) as listener, contextlib.closing(Worker()) as worker:
        address = Address(host, listener.getsockname()[1])
        token = secrets.token_urlsafe(32)
        app = make_app(
            root, hosts=address.names, token=token, read_only=read_only,
            open_to_others=not _meant(host).is_loopback, worker=worker,
        )  # fmt: skip
        url = f"http://{address.names[0]}/"
        say(f"samgan studio shows {root.path}{' (read-only)' if read_only else ''}; Ctrl-C ends it, trainings go on:")
        say(f"  {url}?key={token}")
        if browser:
            webbrowser.open(f"{url}?key={app.key_for_once()}")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none",
            lifespan="off", timeout_graceful_shutdown=2,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def check_host(host: str, known: bool) -> None:
    """Refuse an address that other machines can reach, unless the user knows what that means.

    Raises:
        UsageError: It is no address, stands for all addresses, or is not of this machine alone and `known` is false.
    """
    try:
        address = _meant(host)
    except ValueError:
        raise UsageError(f"--host {host}: expected an IP address of this machine, such as {LOOPBACK}") from None
    if address.is_unspecified:
        raise UsageError(f"--host {host} stands for every address of this machine: name the one that you mean")
    if not address.is_loopback and not known:
        raise UsageError(
            f"--host {host} lets other machines reach the pictures of your patients, unencrypted; whoever has the link "
            "can look at them and start and stop trainings. If that is what you want, add --i-know"
        )


def describe_reach(host: str, read_only: bool) -> str:
    """What it means that other machines can reach an address; empty for one of this machine alone."""
    if _meant(host).is_loopback:
        return ""
    does = "look at the pictures of your patients" + ("" if read_only else ", and start and stop trainings")
    return (
        f"Other machines can reach {host}: whoever has the link can {does}. Nothing is encrypted, so whoever reads the "
        "connection can take the link, too. Keep it secret."
    )


def _meant(host: str) -> IPv4Address | IPv6Address:
    """The address, of version 4 if it is one that is written as one of version 6, such as ::ffff:0.0.0.0."""
    address = ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise SamganError(f"{host}:{port} cannot be used ({first_line(error)}): choose another --port") from None
    return listener
