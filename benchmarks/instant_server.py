"""The instant model server of the benchmarks: HTTP by hand, in a process of its own."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]  # the JSON of a request -> that of its response
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


@contextmanager
def running_server(*command: str) -> Iterator[str]:
    """Runs a script that calls `serve`, by its file and arguments; the base URL."""
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


async def serve(answer: Answer) -> None:
    """Print the base URL, and answer requests until the process that started this one closes its pipe."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await respond(reader, writer, answer)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**24, backlog=1024)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
    """HTTP by hand: a framework would take more of the two cores than the clients that are measured."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            body = json.dumps(await answer(json.loads(await reader.readexactly(length)))).encode()
            writer.write(HEAD % len(body) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def completion(question: str, reply: str) -> dict[str, Any]:
    """A chat completion as OpenAI's API has it; tokens are a quarter of the characters."""
    usage = {"prompt_tokens": len(question) // 4, "completion_tokens": len(reply) // 4}
    usage["total_tokens"] = sum(usage.values())
    message = {"role": "assistant", "content": reply, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    return answer | {"choices": [choice], "usage": usage}
