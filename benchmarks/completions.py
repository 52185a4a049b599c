"""What the instant model servers of the benchmarks answer."""

from typing import Any


def completion(question: str, reply: str) -> dict[str, Any]:
    """A chat completion as OpenAI's API has it; tokens are a quarter of the characters."""
    usage = {"prompt_tokens": len(question) // 4, "completion_tokens": len(reply) // 4}
    usage["total_tokens"] = sum(usage.values())
    message = {"role": "assistant", "content": reply, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    return answer | {"choices": [choice], "usage": usage}
