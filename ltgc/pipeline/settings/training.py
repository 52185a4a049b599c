"""The sections of params.yaml about training, evaluation and comparison."""

from typing import Annotated, Literal

from pydantic import Field

from ltgc.pipeline.settings.base import Count, Fraction, Positive, Section


class LoraSettings(Section):
    rank: Positive
    alpha: Positive
    dropout: Fraction
    targets: list[Literal["attention", "mlp"]] = Field(default=["attention", "mlp"], min_length=1)


class AdaptFormerSettings(Section):
    bottleneck: Positive


class LossSettings(Section):
    tau: float = Field(ge=0)
    gamma: float = Field(ge=0)
    max_margin: float = Field(ge=0)
    beta: Fraction
    lade_alpha: float = Field(ge=0)
    lade_lambda: float = Field(ge=0)


class MixingSettings(Section):
    kind: Literal["mixup", "cutmix"]
    balanced: Literal["original", "generated", "both", "none"]
    unmixed: float = Field(ge=0, le=1)
    warm_down: Count


class GeneratedSettings(Section):
    per_class: Positive | Literal["head"] | None
    weight: float = Field(ge=0)


class TrainSettings(Section):
    steps: Positive
    batch_size: Positive
    lr: float = Field(gt=0)
    warmup_steps: Count
    weight_decay: float = Field(ge=0)
    grad_clip: float = Field(ge=0)
    beta: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    tuning: Literal["lora", "adaptformer", "linear_probe", "full"]
    lora: LoraSettings
    adaptformer: AdaptFormerSettings
    head: Literal["cosine", "linear"]
    head_init: Literal["templates", "class_names", "descriptions", "class_means", "random"]
    logit_scale: float | None
    loss: Literal["cross_entropy", "balanced_softmax", "logit_adjusted", "lade", "focal", "ldam", "class_balanced"]
    loss_settings: LossSettings
    mixing: MixingSettings
    generated: GeneratedSettings
    precision: Literal["fp32", "bf16", "fp16"]
    accumulation: Positive
    compile: bool
    workers: Count
    checkpoint_steps: Positive
    device: Literal["auto", "cpu", "cuda"]


class EvaluateSettings(Section):
    batch_size: Positive
    ensemble: bool
    workers: Count
    device: Literal["auto", "cpu", "cuda"]


class CompareSettings(Section):
    published: Literal["imagenet_lt", "places_lt", "inat2018"] | None


Method = Literal[
    "clip_zero_shot",
    "clip_zero_shot_names",
    "clip_finetune",
    "no_balancemix",
    "balanced_sample",
    "mixup",
    "balancemix",
    "lift",
    "ltgc_lift",
]
