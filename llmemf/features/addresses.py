"""An HTTP transport that connects to public addresses only.

Item tables come from strangers; an address in one must not make this machine talk to its own network. A name is resolved
once per connection, the result is checked, and the connection goes to exactly the checked IP address. So a name that
resolves differently a moment later changes nothing, and a redirect meets the same check as the first address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpcore2
import httpx2

from llmemf.features.image_content import NoImage

NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address is a public unicast address; an IPv4 address inside an IPv6 address is judged itself."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


async def resolve(host: str, port: int) -> list[str]:
    """All IP addresses of a name, in the system's order.

    Raises:
        NoImage: there are none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NoImage("unknown host", transient=True) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections to checked addresses only.

    Args:
        allow_private: switch the check off.
        resolver: from name and port to IP addresses.
        inner: opens the connection to an IP address.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolver: Callable[[str, int], Awaitable[list[str]]] = resolve,
        inner: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allow_private, self._resolve = allow_private, resolver
        self._inner = inner or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *more: Any, **options: Any
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first of the name's addresses that is allowed and answers.

        Raises:
            NoImage: the name is unknown, or all its addresses are private.
            httpcore2.ConnectError: none answers.
        """
        addresses = await self._resolve(host.strip("[]"), port)
        allowed = [address for address in addresses if self._allow_private or is_public(address)]
        if not allowed:
            raise NoImage("private address")
        # Two at most: a dead IPv6 route must not use up the time of the IPv4 address behind it, nor a long list.
        tried = allowed[:2]
        share = None if timeout is None else timeout / len(tried)
        for address in tried:
            try:
                return await self._inner.connect_tcp(address, port, share, *more, **options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """httpx's transport over a pool of guarded connections; it raises `NoImage` beside httpx's own errors.

    httpx has no option for the pool, so the private `_pool` of its transport, all that this has, is set here.
    """

    def __init__(self, backend: GuardedBackend, connections: int) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=connections,
            keepalive_expiry=15.0,
            network_backend=backend,
        )
