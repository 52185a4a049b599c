"""What is read of a server's answers: whatever JSON it sends, the libraries above see the few fields they need.

A field of the wrong type is as good as missing: a null message is an empty reply, and tokens that are no number
were not counted.
"""

import json
from collections.abc import Mapping
from typing import Any

import httpx2
import openai

MAX_TOKENS = 10**9  # of one reply; what a server counts beyond that is no count


class Malformed(httpx2.DecodingError):
    """An answer of status 200 that is torn, or a web page. Tried again, like a lost connection."""


class NoAnswer(openai.OpenAIError):
    """An answer of status 200 that holds no reply. Not tried again: it was answered, and so it is billed."""


def completion(body: bytes, kind: str, request: httpx2.Request) -> bytes:
    """The body of a chat completion, streamed or not, as a completion that is not streamed."""
    found = _streamed(body, request) if "event-stream" in kind else _object(body, kind, request)
    choice = _first(found, "choices")
    if choice is None:
        raise NoAnswer(f"no choices in {_start(body)}")
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    said = {"role": "assistant", "content": _content(message), "refusal": _text(message, "refusal")}
    entry = {"index": 0, "finish_reason": _text(choice, "finish_reason"), "message": said}
    counted = {"usage": usage} if (usage := _usage(found)) else {}
    head = {"id": "", "object": "chat.completion", "created": 0, "model": ""}
    head |= {"service_tier": "flex"} if found.get("service_tier") == "flex" else {}
    return json.dumps(head | {"choices": [entry]} | counted).encode()


def drawings(body: bytes, kind: str, request: httpx2.Request) -> bytes:
    """The body of an answer of the images API, with one image at most."""
    found = _object(body, kind, request)
    if not isinstance(found.get("data"), list):
        raise NoAnswer(f"no data in {_start(body)}")
    image = _first(found, "data") or {}
    fields = {name: value for name in ("b64_json", "url") if (value := _text(image, name)) is not None}
    usage = found.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counted = {name: _count(usage.get(name)) for name in ("input_tokens", "output_tokens")}
    counted["total_tokens"] = sum(counted.values())
    return json.dumps({"created": 0, "data": [fields] if fields else [], "usage": counted}).encode()


def any_json(body: bytes, kind: str, request: httpx2.Request) -> bytes:
    """The body as it is. Raises Malformed for what is no JSON."""
    _object(body, kind, request)
    return body


def _object(body: bytes, kind: str, request: httpx2.Request) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except RecursionError:
        raise NoAnswer(f"JSON that is nested too deep: {_start(body)}") from None
    except ValueError:
        raise Malformed(f"an answer that is no JSON ({kind}): {_start(body)}", request=request) from None
    return found if isinstance(found, dict) else {}


def _streamed(body: bytes, request: httpx2.Request) -> dict[str, Any]:
    """The pieces of a stream put together. Raises Malformed for one that breaks off."""
    text, refusal, whole = "", "", False
    found: dict[str, Any] = {}
    finish_reason = None
    for line in body.decode("utf-8", "replace").splitlines():
        data = line.removeprefix("data:").strip()
        if data == line.strip() or not data:
            continue
        if data == "[DONE]":
            whole = True
            break
        piece = _object(data.encode("utf-8", "replace"), "text/event-stream", request)
        found |= {name: piece[name] for name in ("usage", "service_tier") if piece.get(name)}
        choice = _first(piece, "choices") or {}
        delta = choice.get("delta")
        if isinstance(delta, dict):
            text += _content(delta) or ""
            refusal += _text(delta, "refusal") or ""
        finish_reason = _text(choice, "finish_reason") or finish_reason
    if not whole and finish_reason is None:
        raise Malformed(f"a stream that breaks off: {_start(body)}", request=request)
    message = {"content": text, "refusal": refusal or None}
    return found | {"choices": [{"message": message, "finish_reason": finish_reason}]}


def _first(found: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The first entry of a list of objects."""
    entries = found.get(name)
    return entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else None


def _text(found: Mapping[str, Any], name: str) -> str | None:
    value = found.get(name)
    return value if isinstance(value, str) else None


def _content(message: Mapping[str, Any]) -> str | None:
    """The text of a message; some servers send it as a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(_text(part, "text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else None


def _usage(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The tokens that the server counted; None where it did not."""
    usage = found.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, reply = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (type(prompt) is int and type(reply) is int and 0 <= prompt <= MAX_TOKENS and 0 <= reply <= MAX_TOKENS):
        return None
    details = usage.get("completion_tokens_details")
    thought = details.get("reasoning_tokens") if isinstance(details, dict) else None
    counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply}
    if type(thought) is int and 0 < thought <= reply:
        counts["completion_tokens_details"] = {"reasoning_tokens": thought}
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        cached = {name: n for name in ("cached_tokens", "cache_write_tokens") if (n := _count(details.get(name)))}
        if cached and sum(cached.values()) <= prompt:
            counts["prompt_tokens_details"] = cached
    return counts


def _count(value: Any) -> int:
    """A number of tokens; 0 for what is none."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else 0


def _start(body: bytes) -> str:
    return body[:80].decode("utf-8", "replace")
