"""Servers that speak the OpenAI API: where they are, the key, their limits, and what their failures mean.

Retries are the openai client's own. What it does not do is done around each attempt, once for chats and images
(ltgc/clients/http.py): reservation in the ledger, rate limit, a deadline for all of it, a bound on what is read,
and the key taken out of whatever the server echoes. See docs/faults.md.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from time import monotonic
from urllib.parse import urlsplit

import httpx2
import openai

from ltgc.clients.answers import Malformed, NoAnswer
from ltgc.clients.http import HTTPClient, Reader, TooLong, WrongAddress, retry_after
from ltgc.clients.limits import Limits
from ltgc.clients.pool import embedded_digest
from ltgc.pipeline.artifacts.reasons import HTTPReason, RequestReason
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import ChatSettings, ServerSettings, is_local
from ltgc.pipeline.terminal import console

NO_KEY = "none"  # what a server that needs no key is sent
MAX_WAIT = 120  # seconds; the openai client does not wait for a longer Retry-After
MAX_OUTAGE = 600  # seconds without any answer, and at least some requests long
WORTH_TELLING = 10  # seconds
NAMED = 10  # failed classes named per reason
REFUSALS = {
    *(
        "content_policy_violation",
        "image_content_policy_violation",
        "moderation_blocked",
        "invalid_prompt",
        "image_generation_user_error",
    ),  # OpenAI
    *("content_filter", "contentFilter"),  # Azure
}
MODERATED = re.compile(r"moderat|content.?(?:policy|filter)|safety|flagged", re.I)
NO_CAPACITY = re.compile(r"resource[ _]unavailable", re.I)  # the 429 of flex processing, which is not billed
# Replies that were all thinking, before their share of all replies is held against max_failed_fraction.
ENOUGH = 10
# What a server that rejects a parameter says, and what then to write in its section of params.yaml.
REJECTS = re.compile(
    r"unsupported|not support|unrecognized|unknown (?:param|arg|field|name)|unexpected|not permitted|not allowed"
    r"|invalid (?:param|arg|field)",
    re.I,
)
# How a server names a parameter; a prompt that it repeats may hold its name, too ("a sunflower seed").
NAMES = r"['\"`]{0}['\"`.\[]|(?:param\w*|arg\w*|field|permitted|supplied):? {0}\b|\b{0}\b (?:is|are|does|do) not"
REMEDIES = {
    "temperature": "temperature: null (or reasoning_effort: none)",
    "reasoning": "reasoning_effort: one that the model knows, or null",
    "service_tier": "service_tier: null",
    "seed": "seed: null",
    "response_format": "response_format: null",
    "size": "size: one that the model draws",
    "quality": "quality: one that the model knows, or null",
    "style": "style: null",
}
OTHER_NAME = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}
STREAM_ONLY = re.compile(r"\bstream\b.*\b(?:true|only|required|must)\b|\bonly\b.*\bstream", re.I)


@contextmanager
def running(**sections: ServerSettings) -> Iterator[list["Server"]]:
    """The servers that sections of params.yaml name (`running(llm=params.llm)`), in order.

    The embedded endpoint is started if one of them is it, once, and stopped at the end.
    Raises LTGCError for a missing key or a malformed address, before anything is started or asked.
    """
    sharing: dict[str, list[ServerSettings]] = defaultdict(list)
    for section in sections.values():
        sharing[section.base_url.rstrip("/")].append(section)
    limits = {base_url: Limits(shared) for base_url, shared in sharing.items()}
    servers = [Server(name, section, limits[section.base_url.rstrip("/")]) for name, section in sections.items()]
    embedded = [server for server in servers if server.section.embedded]
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
    """One server as a stage uses it: its address, its key, and its limits."""

    def __init__(self, name: str, section: ServerSettings, limits: Limits) -> None:
        self.name = name  # of the section of params.yaml
        self.section = section
        self.limits = limits
        self.base_url = section.base_url
        self.key = _api_key(name, section)
        self.headers, secrets = _headers(name, section)
        self._secrets = [secret for secret in (self.key, *secrets) if secret != NO_KEY]
        self.said: str | None = None  # the server's words about its last failure, without the key
        # What its replies depend on beside the question.
        self.version = [embedded_digest()] if section.embedded else []
        self._failed_in_a_row = 0
        self._out_of_order_since: float | None = None
        self._told_until = 0.0  # until when the terminal says why nothing comes
        self._answers = 0
        self._only_thought = 0  # of the answers, those without a word

    def http_client(self, read: Reader) -> HTTPClient:
        """Connections of its own, for one event loop; close it. read: see HTTPClient."""
        return HTTPClient(self, self.section.timeout, read)

    def client(self, read: Reader) -> openai.AsyncOpenAI:
        """A client for one event loop; close it. read: see HTTPClient."""
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.key,
            timeout=self.section.timeout,
            max_retries=self.section.retries,
            default_headers=self.headers,
            http_client=self.http_client(read),
        )

    def answered(self, only_thought: bool = False) -> None:
        """Note that a request got an answer that could be read, and whether there was nothing in it but thinking.

        Raises LTGCError when more than max_failed_fraction of the answers were: each is billed for nothing.
        """
        self._failed_in_a_row = 0
        self._out_of_order_since = None
        self._answers += 1
        self._only_thought += only_thought
        if self._only_thought > max(ENOUGH, self.section.max_failed_fraction * self._answers):
            raise LTGCError(
                f"{self.name}.max_tokens: {self._only_thought} of {self._answers} replies spent all of it on "
                f"thinking and said nothing; set {self.name}.reasoning_effort: none or lower, or raise max_tokens"
            )

    def out_of_order(self, why: str, wait: float) -> None:
        """Note an attempt that failed and may be tried again in `wait` seconds.

        Raises LTGCError where nothing was answered for MAX_OUTAGE seconds: retries of many requests, each with its
        own patience, would come to an hour.
        """
        now = monotonic()
        self._out_of_order_since = now if self._out_of_order_since is None else self._out_of_order_since
        if (silent := now - self._out_of_order_since) > max(MAX_OUTAGE, 3 * self.section.timeout):
            raise LTGCError(
                f"{self._where}: {why}, and no answer for {silent:,.0f} s; run again when it is up, "
                "what was paid for is kept"
            )
        if WORTH_TELLING <= wait <= MAX_WAIT and now >= self._told_until:
            self._told_until = now + wait
            console.print(f"{self._where}: {why}, asks to wait {wait:.0f} s", markup=False, soft_wrap=True)

    @property
    def _where(self) -> str:
        return f"{self.name}.base_url {self.base_url}"

    def failure(self, error: Exception) -> RequestReason:
        """One word for a request that failed after its retries: "refused", "timeout", "http_500", ...

        Raises LTGCError when no other request can do better: a wrong key, model, parameter or address, no money
        left, a wait of hours, or an outage: several times `concurrency` requests failed and none was answered.
        """
        causes = list(_causes(error))
        why = next((cause for cause in causes if isinstance(cause, Malformed)), error)
        self.said = self.hidden(" ".join(str(why).split()))[:300]
        code, status = getattr(error, "code", None), getattr(error, "status_code", None)
        code = code if isinstance(code, str) else None  # a server may send anything
        if isinstance(error, WrongAddress):
            raise LTGCError(f"{self.name}.{error}") from None
        if code == "insufficient_quota":
            raise LTGCError(f"{self._where}: the account's quota is used up; what was paid for is kept") from None
        if code in REFUSALS or (status == 403 and MODERATED.search(self.said)):
            return "refused"
        self._stop_for(error, status, code)
        if status == 429 and NO_CAPACITY.search(self.said) and getattr(self.section, "service_tier", None):
            self._failed_in_a_row += 1
            if self._failed_in_a_row < max(20, 4 * self.limits.concurrency):
                return "flex_unavailable"
            raise LTGCError(
                f"{self._where}: no capacity for {self.name}.service_tier flex, {self._failed_in_a_row} times in "
                "turn; run again later, or set it to null for the standard price; what was paid for is kept"
            ) from None
        if any(isinstance(cause, httpx2.ConnectError) for cause in causes):
            raise LTGCError(f"{self._where}: nothing answers; start the server or correct the address") from None
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= max(20, 4 * self.limits.concurrency):
            raise LTGCError(
                f"{self._where}: {self._failed_in_a_row} requests in a row failed; it said: {self.said}; "
                "run again when it is up, what was paid for is kept"
            ) from None
        if isinstance(error, openai.APITimeoutError):
            return "timeout"
        if isinstance(why, TooLong):
            return "too_long"
        if isinstance(error, openai.APIConnectionError) and not isinstance(why, Malformed | NoAnswer):
            return "connection_lost"
        return HTTPReason(f"http_{status}") if status else "malformed_reply"

    def _stop_for(self, error: Exception, status: int | None, code: str | None) -> None:
        """Raises LTGCError for what another request would be told as well.

        Once a request was answered, the key, the model and the parameters are right: what is refused then is that
        one request.
        """
        if status == 401 or (status == 403 and not self._answers):
            raise LTGCError(
                f"{self._where}: HTTP {status}, access denied; check the key in ${self.section.api_key_env}"
            ) from None
        if (status == 404 or code == "model_not_found") and not self._answers:
            raise LTGCError(
                f"{self.name}.model: {self.base_url} knows no {self.section.model!r}; name one of its models, "
                "and see that base_url ends where the API begins (mostly /v1)"
            ) from None
        if status in (400, 422) and not self._answers and (remedy := self._remedy(error)):
            raise LTGCError(
                f"{self._where}: parameter rejected: set {self.name}.{remedy}; it said: {self.said}"
            ) from None
        if isinstance(error, openai.APIStatusError) and (wait := retry_after(error.response.headers)) > MAX_WAIT:
            raise LTGCError(
                f"{self._where}: HTTP {status}, to be asked again in {wait:,.0f} s; run again then, "
                "what was paid for is kept"
            ) from None

    def check_failures(self, failed: Mapping[str, str], asked: int, what: str) -> None:
        """Report what came to nothing: name -> reason, of `asked`.

        Raises LTGCError past max_failed_fraction of the section.
        """
        hidden = {name: self.hidden(reason) for name, reason in failed.items()}
        check_failures(self.name, self.base_url, self.section.max_failed_fraction, hidden, asked, what, self.said)

    def hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def hidden_bytes(self, body: bytes) -> bytes:
        """For answers: only secrets that are long enough not to be a word ("EMPTY" is a common key of vLLM)."""
        for secret in self._secrets:
            if len(secret) >= 12:
                body = body.replace(secret.encode(), b"***")
        return body

    def _remedy(self, error: Exception) -> str | None:
        """What to set in the section, if the server's words name a parameter that it does not take."""
        said, fields = str(error), type(self.section).model_fields
        if "stream" in fields and not getattr(self.section, "stream", False) and STREAM_ONLY.search(said):
            return "stream: true"
        if not REJECTS.search(said):
            return None
        remedies = dict(REMEDIES)
        if isinstance(self.section, ChatSettings):
            sent = self.section.max_tokens_param
            remedies[sent] = f"max_tokens_param: {OTHER_NAME[sent]}"
        if "send_seed" in fields:
            remedies["seed"] = "send_seed: false"
        for parameter, remedy in remedies.items():
            named = getattr(error, "param", None) == parameter or re.search(NAMES.format(parameter), said, re.I)
            if named and remedy.partition(":")[0] in fields:
                return remedy
        return None


def check_failures(
    name: str, where: str, limit: float, failed: Mapping[str, str], asked: int, what: str, said: str | None = None
) -> None:
    """As Server.check_failures, for the section `name` and the model at `where`."""
    if not failed:
        return
    by_reason: dict[str, list[str]] = defaultdict(list)
    for one, reason in failed.items():
        by_reason[reason].append(one)
    reasons = "; ".join(
        f"{reason}: {', '.join(names[:NAMED])}"
        + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
        for reason, names in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    )
    count = f"{len(failed):,} of {asked:,} got no usable {what} ({reasons})"
    said = f"; it said: {said}" if said else ""
    if len(failed) > limit * asked:
        raise LTGCError(
            f"{name}: {where}: {count}, more than {name}.max_failed_fraction {limit:g} allows{said}; "
            "what was paid for is kept"
        )
    console.print(f"{count}{said}", markup=False, soft_wrap=True)


def _headers(name: str, section: ServerSettings) -> tuple[dict[str, str], list[str]]:
    """The section's headers, and those of their values that are secret: "$NAME" is read from the environment."""
    headers, secrets = dict(section.headers), []
    for header, value in headers.items():
        if value.startswith("$"):
            headers[header] = os.environ.get(value[1:], "").strip()
            secrets.append(headers[header])
            if not headers[header]:
                raise LTGCError(f"{name}.headers: {header}: {value} is not set; export it")
        if not (headers[header].isascii() and headers[header].isprintable()):
            raise LTGCError(f"{name}.headers: {header}: {value} holds characters that no header has")
    return headers, secrets


def _api_key(name: str, section: ServerSettings) -> str:
    url = urlsplit(section.base_url)
    if section.embedded:
        return NO_KEY
    if url.scheme not in ("http", "https") or not url.hostname:
        raise LTGCError(f"{name}.base_url: {section.base_url!r} is no address; write https://host/v1 or embedded")
    key = os.environ.get(section.api_key_env, "").strip()
    if not key and not is_local(section.base_url):
        raise LTGCError(f"{name}.api_key_env: ${section.api_key_env} is not set; export {section.base_url}'s key")
    if not (key.isascii() and key.isprintable()):  # an HTTP library would print it in its error
        raise LTGCError(f"{name}.api_key_env: ${section.api_key_env} holds characters that no key has")
    return key or NO_KEY


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
