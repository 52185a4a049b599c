"""One attempt at one request: paced, within the timeout, read to its end, checked to be JSON."""

import asyncio
import ipaddress
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from ltgc.clients.limits import Limits

MAX_BODY = 32 * 2**20  # bytes read of one answer: an image of 20 MB in base64 and its JSON


class HTTPClient(openai.DefaultAsyncHttpxClient):
    """One attempt at one request, as the openai client makes it: paced, within the timeout, read to its end.

    A stream is read to its end, too: nobody watches the words come, and so a stream that breaks off is tried
    again like any other answer (the openai client does not do that).
    """

    def __init__(self, base_url: str, timeout: float, limits: Limits, hide: Callable[[bytes], bytes]) -> None:
        """timeout: seconds, of a whole attempt; hide: takes secrets out of what the server sent."""
        self._address = base_url
        self._seconds = timeout
        self._rates = limits
        self._hide = hide
        super().__init__(
            # As many connections as requests may be in flight, all of them kept.
            limits=httpx2.Limits(max_connections=limits.concurrency, max_keepalive_connections=limits.concurrency),
            # A proxy does not lead to this machine.
            trust_env=not is_local(base_url),
            # It would carry headers to another host.
            follow_redirects=False,
        )

    async def send(self, request: httpx2.Request, *, stream: bool = False, **kwargs: Any) -> httpx2.Response:
        await self._rates.requests.take()
        try:
            async with asyncio.timeout(self._seconds):  # httpx's own bounds the time between two bytes
                response = await super().send(request, stream=True, **kwargs)
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no whole answer in {self._seconds:g} s", request=request) from None
        body = self._hide(body)
        kind = response.headers.get("content-type", "no content type")
        if response.is_redirect:
            location = response.headers.get("location")
            raise WrongAddress(f"base_url: {self._address} is elsewhere; write the address of {location}")
        if response.is_success:
            if "event-stream" in kind:
                if not stream:
                    raise WrongAddress(f"stream: {self._address} streams always; set it to true")
            else:
                _check_json(body, kind, request)
        headers = [(k, v) for k, v in response.headers.multi_items() if k.lower() not in ENCODING]
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)


ENCODING = {"content-encoding", "content-length", "transfer-encoding"}  # of the body before it was read


class Malformed(httpx2.DecodingError):
    """An answer with status 200 that is no JSON: torn, or a web page. Tried again like a lost connection."""


class TooLong(openai.OpenAIError):
    """More than MAX_BODY bytes. Not tried again: it was paid for, and would be as long."""


class WrongAddress(openai.OpenAIError):
    """Not what was expected at base_url; the message begins with the key to change."""


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLong(f"over {MAX_BODY:,} bytes")
    return bytes(body)


def _check_json(body: bytes, kind: str, request: httpx2.Request) -> None:
    try:
        json.loads(body)
    except ValueError:
        start = body[:80].decode("utf-8", "replace")
        raise Malformed(f"an answer that is no JSON ({kind}): {start}", request=request) from None


def is_local(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
