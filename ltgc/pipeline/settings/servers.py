"""The sections of params.yaml about models that are asked: servers, text-to-image, prices and caps."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ltgc.pipeline.settings.base import Count, Positive, Revision, Section, Sha256

EMBEDDED = "embedded"  # base_url of the local server that stages start and stop themselves
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")  # name of an environment variable; keys have small letters
SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|password", re.I)
FLEX_TIMEOUT = 900  # seconds; what OpenAI's guide to flex processing sets
# What a chat request gets from other keys or from the stage; extra_body must not say it a second time.
OWN_KEYS = {
    *("model", "messages", "temperature", "seed", "max_tokens", "max_completion_tokens", "stream", "n"),
    *("reasoning_effort", "service_tier"),
}


def is_local(base_url: str) -> bool:
    """Whether the server is on this machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ConnectionSettings(Section):
    """How a server that speaks the OpenAI API is reached, and what it is spared."""

    base_url: str
    api_key_env: str
    timeout: float = Field(gt=0)
    retries: Count
    concurrency: Positive
    # What most servers need may be left out.
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    max_failed_fraction: float = Field(default=0.1, ge=0, le=1)
    headers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], str] = Field(default={})
    plain_http: bool = False

    # What is written here is in git, dvc.lock and the report: no secret belongs here, and no error repeats it.
    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str) -> str:
        if not VARIABLE.fullmatch(value):
            raise ValueError(
                "not the name of an environment variable (A-Z, 0-9, _); export the key under such a name"
            )
        return value

    @field_validator("headers")
    @classmethod
    def _holds_no_secret(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if SECRET_HEADER.search(name) and not (value.startswith("$") and VARIABLE.fullmatch(value[1:])):
                raise ValueError(
                    f'{name}: write "$NAME" and export the value as NAME; what stands here is not secret'
                )
        return headers

    @model_validator(mode="after")
    def _sends_no_secret_in_clear(self) -> Self:
        try:
            url = urlsplit(self.base_url)
        except ValueError as error:
            raise ValueError("base_url: no address; write https://host/v1 or embedded") from error
        if url.username or url.password or SECRET_HEADER.search(url.query):
            raise ValueError(
                "base_url: holds a password or a key; export it, and name it in api_key_env or headers"
            )
        if url.scheme == "http" and not self.plain_http and not is_local(self.base_url):
            raise ValueError(
                "base_url: http:// sends the key and the photos unencrypted to another machine; use https://, or "
                "set plain_http: true"
            )
        return self

    @property
    def address(self) -> str:
        """Where replies come from, as the pool tells one server's from another's."""
        return self.base_url.rstrip("/")

    @property
    def embedded(self) -> bool:
        return self.address == EMBEDDED


class ServersSettings(ConnectionSettings):
    """What llm, vision and t2i share, unless one of them says otherwise; the last two keys are of chats alone."""

    max_tokens_param: Literal["max_completion_tokens", "max_tokens"]
    stream: bool


class ServerSettings(ConnectionSettings):
    """One model on a server."""

    model: str
    seed: int | None

    @property
    def billed_as(self) -> str:
        """The model's name in stores and among the prices."""
        return self.model


class ChatSettings(ServerSettings):
    """An LLM or a vision model."""

    temperature: Annotated[float, Field(ge=0)] | None
    max_tokens: Positive
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    service_tier: Literal["flex"] | None = None
    extra_body: dict[str, Any] = Field(default={})
    max_tokens_param: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    stream: bool = False

    @model_validator(mode="after")
    def _sent_once(self) -> "ChatSettings":
        if twice := sorted(OWN_KEYS & self.extra_body.keys()):
            raise ValueError(f"extra_body: {twice[0]} has a key of its own or is set by the stage; remove it")
        return self

    @model_validator(mode="after")
    def _time_for_flex(self) -> "ChatSettings":
        if self.service_tier == "flex" and self.timeout < FLEX_TIMEOUT:
            raise ValueError(f"service_tier: flex may take 15 minutes to reply; set timeout: {FLEX_TIMEOUT}")
        return self


class DiffusersLoraSettings(Section):
    path: Path
    scale: float = 1.0
    revision: Sha256 | None = None


class DiffusersSettings(Section):
    """A text-to-image pipeline on the GPUs of this machine or of a Ray cluster."""

    cluster: Annotated[str, Field(min_length=1)] | None = None
    revision: Revision | None = None
    variant: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    steps: Positive | None = None
    guidance: Annotated[float, Field(ge=0)] | None = None
    negative_prompt: str | None = None
    scheduler: str | None = None
    lora: DiffusersLoraSettings | None = None
    batch_size: Positive = 8
    wait: Annotated[float, Field(ge=0)] = 0.005
    offload: Literal["none", "model", "sequential"] = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False

    @model_validator(mode="after")
    def _negative_prompt_is_read(self) -> "DiffusersSettings":
        if self.negative_prompt and self.guidance is not None and self.guidance <= 1:
            raise ValueError("negative_prompt has no effect with guidance <= 1; set it to null or raise guidance")
        return self


LOCAL = "diffusers:"  # before the model's name, where it draws on this machine and so costs nothing unless priced


class T2ISettings(ServerSettings):
    """An images API, or, with the backend diffusers, a pipeline on this machine."""

    backend: Literal["openai", "diffusers"]
    size: str = Field(pattern=r"^(\d+x\d+|auto)$")
    send_seed: bool
    response_format: Literal["b64_json"] | None = "b64_json"
    quality: str | None = None
    style: str | None = None
    start_strengths: list[Annotated[float, Field(gt=0, le=1)]] = Field(default=[])
    diffusers: DiffusersSettings = DiffusersSettings()

    @model_validator(mode="after")
    def _style_is_read(self) -> "T2ISettings":
        if self.is_gpt_image and self.style:
            raise ValueError("style: gpt-image models take none; set it to null and ask for it in the description")
        return self

    @model_validator(mode="after")
    def _strengths_differ(self) -> "T2ISettings":
        if len(set(self.start_strengths)) < len(self.start_strengths):
            raise ValueError("start_strengths: one is there twice; name each once")
        if self.is_gpt_image and self.start_strengths not in ([], [1.0]):
            raise ValueError("start_strengths: gpt-image models edit without a strength; set [1.0]")
        return self

    @property
    def is_gpt_image(self) -> bool:
        """Whether it is one of OpenAI's models that take no seed, style and response_format."""
        return self.backend == "openai" and self.model.startswith(("gpt-image-", "chatgpt-image-"))

    @property
    def address(self) -> str:
        return LOCAL if self.backend == "diffusers" else super().address

    @property
    def billed_as(self) -> str:
        return LOCAL + self.model if self.backend == "diffusers" else self.model


# The sections that `servers` completes.
SERVED: dict[str, type[ServerSettings]] = {"llm": ChatSettings, "vision": ChatSettings, "t2i": T2ISettings}


def completed(raw: Any) -> Any:
    """params.yaml with the keys of `servers` in llm, vision and t2i where these do not give their own.

    What is no mapping is left as it is: the validation that follows names it.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("servers"), dict):
        return raw
    sections = {
        name: {key: value for key, value in raw["servers"].items() if key in kind.model_fields} | raw[name]
        for name, kind in SERVED.items()
        if isinstance(raw.get(name), dict)
    }
    return raw | sections


class BudgetSettings(Section):
    """Caps on what a project spends; None: no cap."""

    max_usd: Annotated[float, Field(ge=0)] | None
    max_calls: Count | None
    project: str | None = None  # None: named by the first commit of the repository


class Price(Section):
    """What a model costs, in USD."""

    input: Annotated[float, Field(ge=0)] = 0  # a million prompt tokens
    output: Annotated[float, Field(ge=0)] = 0  # a million tokens of replies, thinking included, or of drawn images
    image: Annotated[float, Field(ge=0)] = 0  # a drawn image
    # Of the prompt tokens, a million that the provider had in its cache, or put there; None: as any other.
    cached_input: Annotated[float, Field(ge=0)] | None = None
    cache_write: Annotated[float, Field(ge=0)] | None = None
    # Prompt tokens that an image in a question counts as: 1.2 for each patch of 32 x 32 pixels, as OpenAI has
    # counted since GPT-5.4, at describe's 1024 x 1024.
    image_tokens: Count = 1229
    # Tokens that the model thinks before a reply, for the estimate: unless reasoning_effort is none.
    reasoning_tokens: Count = 0

    @model_validator(mode="after")
    def _whole(self) -> "Price":
        if {"input", "output"} & self.model_fields_set in ({"input"}, {"output"}):
            raise ValueError("a price of tokens is input and output, both")
        return self
