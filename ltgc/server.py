"""Servers that speak the OpenAI API: where they are, the key, and what their failures mean."""

import asyncio
import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from urllib.parse import urlsplit

import openai

from ltgc import params
from ltgc.errors import LTGCError

EMBEDDED = "embedded"
NO_KEY = "none"  # what a server that needs no key is sent
REFUSALS = {"content_policy_violation", "content_filter", "moderation_blocked", "image_generation_user_error"}


@contextmanager
def running(**sections: params.Server) -> Iterator[list["Server"]]:
    """The servers that sections of params.yaml name (`running(llm=params.llm)`), in order.

    The embedded endpoint is started if one of them is it, once, and stopped at the end.
    Raises LTGCError for a missing key or a malformed address, before anything is started or asked.
    """
    servers = [Server(name, section) for name, section in sections.items()]
    embedded = [server for server in servers if server.section.base_url == EMBEDDED]
    if not embedded:
        yield servers
        return
    try:
        endpoint = import_module("embedded.endpoint")
    except ModuleNotFoundError as error:
        name = embedded[0].name
        raise LTGCError(f"{name}.base_url: embedded/ is not there ({error}); name a server") from error
    with endpoint.running() as base_url:
        for server in embedded:
            server.base_url = base_url
        yield servers


class Server:
    """One server as a stage uses it: its address, its key, and how many requests may be in flight."""

    def __init__(self, name: str, section: params.Server) -> None:
        self.name = name  # of the section of params.yaml
        self.section = section
        self.base_url = section.base_url
        self.key = _api_key(name, section)
        self.slots = asyncio.Semaphore(section.concurrency)
        self.said: str | None = None  # the server's words about its last failure, without the key

    def http_client(self) -> openai.DefaultAsyncHttpxClient:
        """Connections of its own, for one event loop; close it. A proxy does not lead to this machine."""
        return openai.DefaultAsyncHttpxClient(trust_env=not _is_local(self.base_url))

    def client(self) -> openai.AsyncOpenAI:
        """A client for one event loop; close it."""
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.key,
            timeout=self.section.timeout,
            max_retries=self.section.retries,
            http_client=self.http_client(),
        )

    def failure(self, error: Exception) -> str:
        """One word for a request that failed after its retries: "refused", "timeout", "http_500", ...

        Raises LTGCError when no other request can do better: a wrong key, model or address, no money left.
        """
        said = " ".join(str(error).split())
        self.said = (said if self.key == NO_KEY else said.replace(self.key, "***"))[:300]
        code = getattr(error, "code", None)
        status = getattr(error, "status_code", None)
        where = f"{self.name}.base_url {self.base_url}"
        if status in (401, 403):
            raise LTGCError(
                f"{where}: HTTP {status}, access denied; check the key in ${self.section.api_key_env}"
            ) from None
        if status == 404 or code == "model_not_found":
            raise LTGCError(
                f"{self.name}.model: {self.base_url} knows no {self.section.model!r}; name one of its models, "
                "and see that base_url ends where the API begins (mostly /v1)"
            ) from None
        if code == "insufficient_quota":
            raise LTGCError(f"{where}: the account's quota is used up; what was paid for is kept") from None
        if code in REFUSALS:
            return "refused"
        if isinstance(error, openai.APITimeoutError):
            return "timeout"
        if isinstance(error, openai.APIConnectionError):
            if "ConnectError" in {type(cause).__name__ for cause in _causes(error)}:
                raise LTGCError(f"{where}: nothing answers; start the server or correct the address") from None
            return "connection_lost"
        return f"http_{status}" if status else "malformed_reply"

    def raise_if_all_failed(self, failed: int, asked: int, what: str) -> None:
        """Raise LTGCError if `asked` things were asked for and all of them failed."""
        if asked and failed == asked:
            said = f"; it said: {self.said}" if self.said else ""
            raise LTGCError(f"{self.name}: {self.base_url} gave no usable {what} in {asked} tries{said}")


def _api_key(name: str, section: params.Server) -> str:
    url = urlsplit(section.base_url)
    if section.base_url == EMBEDDED:
        return NO_KEY
    if url.scheme not in ("http", "https") or not url.hostname:
        raise LTGCError(f"{name}.base_url: {section.base_url!r} is no address; write https://host/v1 or embedded")
    key = os.environ.get(section.api_key_env, "").strip()
    if not key and not _is_local(section.base_url):
        raise LTGCError(f"{name}.api_key_env: ${section.api_key_env} is not set; export {section.base_url}'s key")
    if not (key.isascii() and key.isprintable()):  # an HTTP library would print it in its error
        raise LTGCError(f"{name}.api_key_env: ${section.api_key_env} holds characters that no key has")
    return key or NO_KEY


def _is_local(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
