"""One request for an image: redirects by hand, a limit on its size, and a reason for every failure."""

from __future__ import annotations

import re
import ssl
from urllib.parse import urljoin, urlsplit

import httpcore2
import httpx2

from llmemf.features.addresses import ForbiddenAddress, UnknownHost
from llmemf.features.pace import retry_after

REDIRECTS = 5
BAD_ADDRESS = "bad address"
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)


class Failed(Exception):
    """An image that could not be had; `transient` if it may be had later, `wait` as the server asks."""

    def __init__(
        self, reason: str, *, transient: bool = False, limited: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(reason)
        self.transient = transient
        self.limited = limited
        self.wait = wait


async def get_image(client: httpx2.AsyncClient, address: str, max_bytes: int) -> bytes:
    """The body behind an address, redirects followed by hand so that each meets the same checks.

    Raises:
        Failed: with the reason.
    """
    for _ in range(REDIRECTS + 1):
        if not is_address(address):
            raise Failed(BAD_ADDRESS)
        try:
            async with client.stream("GET", address) as response:
                location = response.headers.get("location")
                if response.status_code in (301, 302, 303, 307, 308) and location:
                    address = urljoin(address, location)
                    continue
                return await _read(response, max_bytes)
        except Failed:
            raise
        except ForbiddenAddress:
            raise Failed("private address") from None
        except UnknownHost:
            raise Failed("unknown host", transient=True) from None
        except httpcore2.TimeoutException:
            raise Failed("timeout", transient=True) from None
        except httpcore2.ConnectError as error:
            if _is_about_the_certificate(error):
                raise Failed("bad certificate") from None
            raise Failed("no connection", transient=True) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError):
            raise Failed("broken connection", transient=True) from None
        except (httpx2.InvalidURL, httpx2.HTTPError, httpcore2.UnsupportedProtocol, ValueError):
            raise Failed(BAD_ADDRESS) from None
    raise Failed("too many redirects")


async def _read(response: httpx2.Response, max_bytes: int) -> bytes:
    status = response.status_code
    if status != 200:
        transient = status in TRANSIENT_STATUS or status >= 520
        raise Failed(f"HTTP {status}", transient=transient, limited=status == 429, wait=retry_after(response.headers))
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Failed("compressed transfer")
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise Failed("too large")
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > max_bytes:
            raise Failed("too large")
    return bytes(data)


def _is_about_the_certificate(error: BaseException | None) -> bool:
    """Whether a refused certificate stands at the root of a failed connection."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def is_address(address: str) -> bool:
    """Whether something is an http or https address with a host, as opposed to a path or anything else."""
    try:
        parts = urlsplit(address)
        return parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def names_a_scheme(address: str) -> bool:
    """Whether something was meant as an address: ftp://..., http:/..., data:..., //host/..."""
    return address.startswith("//") or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", address) is not None
