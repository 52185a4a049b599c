"""params.yaml as typed, checked values: the one place that reads it.

A stage loads only the sections that it declares in dvc.yaml, so it cannot depend on a key that DVC
does not watch.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ltgc.errors import LTGCError

PARAMS = Path("params.yaml")

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LongTail(Section):
    head: Positive | None
    ratio: float = Field(ge=1)


class Files(Section):
    """Of the sources list and inaturalist, below data.root."""

    train: str | None
    val: str | None
    test: str | None


class Table(Section):
    """Of the source csv: its file below data.root and the names of its columns."""

    file: str
    image: str
    class_name: str
    split: str | None


class Data(Section):
    source: Literal["wildflowers", "folder", "list", "inaturalist", "csv", "cifar10", "cifar100"]
    root: Path
    images: Path | None
    files: Files
    class_names: str | None
    table: Table
    seed: int
    val_fraction: Fraction
    test_fraction: Fraction
    on_bad_image: Literal["error", "skip"]
    verify: bool
    max_pixels: int = Field(gt=0, le=100_000_000)  # ltgc.images.MAX_PIXELS: no stage reads a larger one
    near_duplicates: Annotated[int, Field(ge=0, le=8)] | None  # random hashes of iNaturalist meet from 8 on
    long_tail: LongTail

    @model_validator(mode="after")
    def _training_images_left(self) -> "Data":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must be below 1: nothing would be left to train on")
        return self


class Server(Section):
    """A server that speaks the OpenAI API."""

    base_url: str
    model: str
    api_key_env: str
    timeout: float = Field(gt=0)
    retries: Count
    concurrency: Positive
    seed: int | None
    # What most servers need may be left out.
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    max_failed_fraction: float = Field(default=0.1, ge=0, le=1)
    headers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], str] = {}


class Chat(Server):
    """An LLM or a vision model."""

    temperature: Annotated[float, Field(ge=0)] | None
    max_tokens: Positive
    max_tokens_param: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    stream: bool = False


class Describe(Section):
    tries: Positive


class Extend(Section):
    target: Count
    max_rounds: Positive
    max_stalled: Positive
    repetition_check: bool
    source: Literal["llm", "class_name"]


class Templates(Section):
    source: Literal["llm", "class_name"]
    tries: Positive


Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class DiffusersLora(Section):
    path: Path
    scale: float = 1.0
    revision: Sha256 | None = None


class Diffusers(Section):
    """A text-to-image pipeline on this machine."""

    revision: Commit | Sha256 | None = None
    variant: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    steps: Positive | None = None
    guidance: Annotated[float, Field(ge=0)] | None = None
    negative_prompt: str | None = None
    scheduler: str | None = None
    lora: DiffusersLora | None = None
    batch_size: Positive = 8
    wait: Annotated[float, Field(ge=0)] = 0.005
    offload: Literal["none", "model", "sequential"] = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False

    @model_validator(mode="after")
    def _negative_prompt_is_read(self) -> "Diffusers":
        if self.negative_prompt and self.guidance is not None and self.guidance <= 1:
            raise ValueError("negative_prompt has no effect with guidance <= 1; set it to null or raise guidance")
        return self


LOCAL = "diffusers:"  # before the model's name, where it draws on this machine and so costs nothing unless priced


class T2I(Server):
    """An images API, or, with the backend diffusers, a pipeline on this machine."""

    backend: Literal["openai", "diffusers"]
    size: str = Field(pattern=r"^(\d+x\d+|auto)$")
    send_seed: bool
    response_format: Literal["b64_json"] | None = "b64_json"
    quality: str | None = None
    style: str | None = None
    diffusers: Diffusers = Diffusers()

    @property
    def billed_as(self) -> str:
        """The model's name in stores and among the prices."""
        return LOCAL + self.model if self.backend == "diffusers" else self.model


class Clip(Section):
    model: str
    pretrained: str | None
    revision: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|sha256:[0-9a-f]{64})$")] | None = None


class Filter(Section):
    scorer: Literal["cosine", "probability", "percentile"]
    threshold: float
    offset: float
    wait: Annotated[float, Field(ge=0, le=1)] = 0.005
    max_refinements: Count
    text: Literal["templates", "class_names"]

    @model_validator(mode="after")
    def _threshold_in_range(self) -> "Filter":
        low, high = {"cosine": (-1.0, 2.0), "probability": (0.0, 1.0), "percentile": (0.0, 100.0)}[self.scorer]
        if not low <= self.threshold <= high:
            raise ValueError(f"threshold {self.threshold} is outside [{low}, {high}] of the {self.scorer} scorer")
        return self


class Quality(Section):
    duplicate_distance: Annotated[int, Field(ge=0, le=64)]
    duplicate_cosine: float = Field(ge=-1, le=1)
    drop_contaminated: bool


class Lora(Section):
    rank: Positive
    alpha: Positive
    dropout: Fraction
    targets: list[Literal["attention", "mlp"]] = Field(default=["attention", "mlp"], min_length=1)


class AdaptFormer(Section):
    bottleneck: Positive


class LossSettings(Section):
    tau: float = Field(ge=0)
    gamma: float = Field(ge=0)
    max_margin: float = Field(ge=0)
    beta: Fraction
    lade_alpha: float = Field(ge=0)
    lade_lambda: float = Field(ge=0)


class Mixing(Section):
    kind: Literal["mixup", "cutmix"]
    balanced: Literal["original", "generated", "both", "none"]
    unmixed: float = Field(ge=0, le=1)
    warm_down: Count


class Generated(Section):
    per_class: Positive | Literal["head"] | None
    weight: float = Field(ge=0)


class Train(Section):
    steps: Positive
    batch_size: Positive
    lr: float = Field(gt=0)
    warmup_steps: Count
    weight_decay: float = Field(ge=0)
    grad_clip: float = Field(ge=0)
    beta: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    tuning: Literal["lora", "adaptformer", "linear_probe", "full"]
    lora: Lora
    adaptformer: AdaptFormer
    head: Literal["cosine", "linear"]
    head_init: Literal["templates", "class_names", "descriptions", "class_means", "random"]
    logit_scale: float | None
    loss: Literal["cross_entropy", "balanced_softmax", "logit_adjusted", "lade", "focal", "ldam", "class_balanced"]
    loss_settings: LossSettings
    mixing: Mixing
    generated: Generated
    precision: Literal["fp32", "bf16", "fp16"]
    accumulation: Positive
    compile: bool
    workers: Count
    checkpoint_steps: Positive
    device: Literal["auto", "cpu", "cuda"]


class Evaluate(Section):
    batch_size: Positive
    ensemble: bool
    workers: Count
    device: Literal["auto", "cpu", "cuda"]


class Ask(Section):
    max_images: Count | None
    seed: int


class Compare(Section):
    published: Literal["imagenet_lt", "places_lt", "inat2018"] | None


Method = Literal[
    "clip_zero_shot",
    "clip_finetune",
    "no_balancemix",
    "balanced_sample",
    "mixup",
    "balancemix",
    "lift",
    "ltgc_lift",
]


class Budget(Section):
    """Caps on what all stores together may come to; None: no cap."""

    max_usd: Annotated[float, Field(ge=0)] | None
    max_calls: Count | None


class Price(Section):
    """What a model costs, in USD."""

    input: Annotated[float, Field(ge=0)] = 0  # a million prompt tokens
    output: Annotated[float, Field(ge=0)] = 0  # a million tokens of replies
    image: Annotated[float, Field(ge=0)] = 0  # a drawn image
    # Prompt tokens that an image in a question counts as: gpt-4o's 85 + 4 tiles x 170 at describe's 1024 px.
    image_tokens: Count = 765

    @model_validator(mode="after")
    def _whole(self) -> "Price":
        if {"input", "output"} & self.model_fields_set in ({"input"}, {"output"}):
            raise ValueError("a price of tokens is input and output, both")
        return self


class Params(Section):
    """params.yaml. Sections that were not asked for are absent: touching one raises AttributeError."""

    data: Data
    llm: Chat
    vision: Chat
    describe: Describe
    extend: Extend
    templates: Templates
    t2i: T2I
    clip: Clip
    filter: Filter
    quality: Quality
    train: Train
    evaluate: Evaluate
    ask: Ask
    compare: Compare
    methods: list[Method] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    budget: Budget
    prices: dict[str, Price]


def load(*keys: str, path: Path = PARAMS) -> Params:
    """Check all of params.yaml and return the named parts of it.

    keys: dotted, as under `params:` of the stage in dvc.yaml ("clip", "extend.target").
    Raises LTGCError naming the file and the key.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LTGCError(f"{path}: not there; run from the repository root") from error
    except yaml.YAMLError as error:
        raise LTGCError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        # A mistyped key is two errors, an unknown key and a missing one: the first says where the typing is.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        key = ".".join(map(str, first["loc"])) or "the file"
        hint = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise LTGCError(f"{path}: {key}: {hint}") from error
    return _only(params, [key.split(".") for key in keys])


def _only(section: Any, keys: list[list[str]]) -> Any:
    """A copy of `section` with only the fields that `keys` name."""
    if any(not key for key in keys):
        return section
    fields = {
        name: _only(getattr(section, name), [key[1:] for key in keys if key[0] == name])
        for name in {key[0] for key in keys}
    }
    return type(section).model_construct(**fields)
