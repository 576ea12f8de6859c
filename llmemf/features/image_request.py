"""One request for an image: redirects one by one, a limit on its size, and a reason for every failure."""

from __future__ import annotations

from urllib.parse import urljoin

import httpx2

from llmemf.features.image_content import NoImage
from llmemf.features.retries import retry_after
from llmemf.scenarios.images import is_address

REDIRECTS = 5
BAD_ADDRESS = "bad address"
UNREACHABLE = ("unknown host", "no connection")
"""Reasons that may mean that this machine is offline."""
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
TRANSIENT_ERRORS = {
    httpx2.TimeoutException: "timeout",
    httpx2.ConnectError: "no connection",
    httpx2.NetworkError: "broken connection",
    httpx2.RemoteProtocolError: "broken connection",
}
"""Reasons of failures that a later try may mend; the first that fits."""


async def get_image(client: httpx2.AsyncClient, address: str, max_bytes: int) -> bytes:
    """The bytes behind an address; every redirect meets the same checks, and its own body is never read.

    Raises:
        NoImage: with the reason.
    """
    try:
        for _ in range(REDIRECTS + 1):
            if not is_address(address):
                raise NoImage(BAD_ADDRESS)
            async with client.stream("GET", address) as response:
                if not response.has_redirect_location:
                    return await _read(response, max_bytes)
                address = urljoin(address, response.headers["location"])
    except tuple(TRANSIENT_ERRORS) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise NoImage("bad certificate") from None
        reason = next(reason for kind, reason in TRANSIENT_ERRORS.items() if isinstance(error, kind))
        raise NoImage(reason, transient=True) from None
    except (httpx2.InvalidURL, httpx2.HTTPError, ValueError):
        raise NoImage(BAD_ADDRESS) from None
    raise NoImage("too many redirects")


async def _read(response: httpx2.Response, max_bytes: int) -> bytes:
    status = response.status_code
    if status != 200:
        transient = status in TRANSIENT_STATUS or status >= 520
        wait = retry_after(response.headers)
        raise NoImage(f"HTTP {status}", transient=transient, limited=status == 429, wait=wait)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise NoImage("compressed transfer")
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise NoImage("too large")
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > max_bytes:
            raise NoImage("too large")
    return bytes(data)
