"""The sections of params.yaml about training, evaluation and comparison."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ltgc.pipeline.settings.base import Count, Fraction, Positive, Section

Method = Literal[
    "clip_zero_shot",
    "clip_zero_shot_names",
    "clip_finetune",
    "no_balancemix",
    "balanced_sample",
    "mixup",
    "balancemix",
    "balanced_photos",
    "ltgc_plus",
    "lift",
    "ltgc_lift",
    "da_fusion",
    "discl",
    "lift_plus",
    "ltgc_lift_plus",
    "lpt",
    "ltgc_lpt",
    "vl_ltr",
    "ltgc_vl_ltr",
    "rac",
    "ltgc_rac",
]
# Methods that are trained on photos alone, or on nothing (ltgc/training/methods.py).
WITHOUT_DRAWINGS: tuple[Method, ...] = (
    "clip_zero_shot",
    "clip_zero_shot_names",
    "clip_finetune",
    "balanced_photos",
    "lift",
    "lift_plus",
    "lpt",
    "vl_ltr",
    "rac",
)


class LoraSettings(Section):
    rank: Positive
    alpha: Positive
    dropout: Fraction
    targets: list[Literal["attention", "mlp"]] = Field(default=["attention", "mlp"], min_length=1)


class AdaptFormerSettings(Section):
    bottleneck: Positive


class PromptsSettings(Section):
    length: Positive


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
    share: float | None = Field(ge=0, le=1)
    adjust: bool
    photos_last: float = Field(ge=0, le=1)
    probe: bool


class TrainSettings(Section):
    steps: Positive
    steps_factor: float = Field(gt=0)
    batch_size: Positive
    lr: float = Field(gt=0)
    warmup_steps: Count
    weight_decay: float = Field(ge=0)
    grad_clip: float = Field(ge=0)
    beta: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    tuning: Literal["lora", "adaptformer", "prompts", "linear_probe", "full"]
    lora: LoraSettings
    adaptformer: AdaptFormerSettings
    prompts: PromptsSettings
    head: Literal["cosine", "linear"]
    head_init: Literal["templates", "class_names", "descriptions", "class_means", "random"]
    probe_first: bool
    logit_scale: float | None
    loss: Literal["cross_entropy", "balanced_softmax", "logit_adjusted", "lade", "focal", "ldam", "class_balanced"]
    loss_settings: LossSettings
    crops: Literal["steady", "decaying"]
    mixing: MixingSettings
    generated: GeneratedSettings
    interpolate: Literal["validation"] | Annotated[float, Field(ge=0, le=1)] | None
    precision: Literal["fp32", "bf16", "fp16"]
    accumulation: Positive
    compile: bool
    workers: Count
    checkpoint_steps: Positive
    device: Literal["auto", "cpu", "cuda"]
    own: dict[Method, dict[str, Any]]

    def of(self, method: Method) -> "TrainSettings":
        """What `method` is trained with: its own keys before the common ones, steps x steps_factor."""
        merged = _merged(self.model_dump(), self.own.get(method, {}))
        merged["steps"] = max(1, round(merged["steps"] * merged["steps_factor"]))
        return TrainSettings.model_validate(merged | {"steps_factor": 1.0, "own": {}})

    @model_validator(mode="after")
    def _own_keys_are_keys_of_train(self) -> "TrainSettings":
        for method, own in self.own.items():
            try:
                self.of(method)
            except ValidationError as error:
                first = error.errors()[0]
                key = ".".join(map(str, ("own", method, *first["loc"])))
                raise ValueError(f"{key}: {first['msg']}") from error
            if "own" in own:
                raise ValueError(f"own.{method}.own: a method's own keys hold no others")
        return self


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with `changes`; a mapping changes only its keys."""
    merged = values | changes
    for key in values.keys() & changes.keys():
        if isinstance(values[key], dict) and isinstance(changes[key], dict):
            merged[key] = _merged(values[key], changes[key])
    return merged


class EvaluateSettings(Section):
    batch_size: Positive
    ensemble: bool
    workers: Count
    device: Literal["auto", "cpu", "cuda"]


class CompareSettings(Section):
    published: Literal["imagenet_lt", "places_lt", "inat2018"] | None
