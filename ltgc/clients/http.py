"""One attempt at one request: reserved, paced, within the timeout, read to its end."""

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2
import openai

from ltgc.clients.answers import Malformed
from ltgc.clients.limits import Limits
from ltgc.clients.payments import paying
from ltgc.pipeline.settings.servers import is_local

MAX_BODY = 32 * 2**20  # bytes read of one answer: an image of 20 MB in base64 and its JSON
Reader = Callable[[bytes, str, httpx2.Request], bytes]  # (body, content type, request) -> what is read of it


class Told(Protocol):
    """Who is told of what a server answers: see ltgc.clients.server.Server."""

    base_url: str
    limits: Limits

    def hidden(self, text: str) -> str: ...

    def hidden_bytes(self, body: bytes) -> bytes: ...

    def out_of_order(self, why: str, wait: float) -> None: ...


class TooLong(openai.OpenAIError):
    """More than MAX_BODY bytes. Not tried again: it was paid for, and would be as long."""


class WrongAddress(openai.OpenAIError):
    """Not what was expected at base_url; the message begins with the key to change."""


class HTTPClient(openai.DefaultAsyncHttpxClient):
    """The openai client's HTTP client: each `send` is one attempt, of which its retries may make several."""

    def __init__(self, server: Told, timeout: float, read: Reader) -> None:
        """timeout: seconds, of a whole attempt; read: reduces the body of an answer to what is read of it."""
        self._server = server
        self._seconds = timeout
        self._read = read
        at_once = server.limits.concurrency
        super().__init__(
            # As many connections as requests may be in flight, all of them kept.
            limits=httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once),
            # A proxy does not lead to this machine.
            trust_env=not is_local(server.base_url),
            # It would carry headers to another host.
            follow_redirects=False,
        )

    async def send(self, request: httpx2.Request, *, stream: bool = False, **kwargs: Any) -> httpx2.Response:
        """The answer to one attempt. What it cost, if it failed, is settled before it is tried again."""
        payment = paying.get()
        await self._server.limits.requests.take()
        if payment:
            await payment.attempt()
        try:
            response = await self._exchange(request, **kwargs)
        except httpx2.HTTPError as error:
            if payment:
                await payment.failed("not billed" if isinstance(error, NOT_SENT) else "possibly billed")
            self._server.out_of_order(type(error).__name__, 0.0)
            raise
        except TooLong:
            if payment:
                await payment.failed("useless")
            raise
        if not response.is_success:
            if payment:
                await payment.failed("not billed")
            self._refuse_redirect(response)
            self._server.out_of_order(f"HTTP {response.status_code}", retry_after(response.headers))
            return response
        kind = response.headers.get("content-type", "no content type")
        try:
            body = self._read(response.content, kind, request)
        except (Malformed, openai.OpenAIError):
            if payment:
                await payment.failed("useless")
            raise
        headers = {"content-type": "application/json"}
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)

    async def _exchange(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        """The whole answer, without secrets in its body."""
        try:
            async with asyncio.timeout(self._seconds):  # httpx's own bounds the time between two bytes
                response = await super().send(request, stream=True, **kwargs)
                try:
                    body = await _read_all(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no whole answer in {self._seconds:g} s", request=request) from None
        headers = [(k, v) for k, v in response.headers.multi_items() if k.lower() not in ENCODING]
        body = self._server.hidden_bytes(body)
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)

    def _refuse_redirect(self, response: httpx2.Response) -> None:
        if response.is_redirect:
            # The address may hold the key: as a parameter, or as a user's password.
            url = urlsplit(response.headers.get("location", ""))
            where = self._server.hidden(f"{url.scheme}://{url.hostname}{url.path}" if url.hostname else url.path)
            raise WrongAddress(f"base_url: {self._server.base_url} is elsewhere; write the address of {where}")


NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
ENCODING = {"content-encoding", "content-length", "transfer-encoding"}  # of the body before it was read


async def _read_all(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLong(f"over {MAX_BODY:,} bytes")
    return bytes(body)


def retry_after(headers: httpx2.Headers) -> float:
    """Seconds that the server asks to wait, as the openai client reads them; 0 where there are none."""
    for header, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(header, "")) / unit
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) else 0.0
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError, TypeError):
        return 0.0
    return (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
