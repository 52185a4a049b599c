"""Training runs and their test results, one a method and seed."""

from pathlib import Path

from ltgc.pipeline.artifacts.dataset import ShotGroup
from ltgc.pipeline.files import Record

MODELS = Path("models")
CURVES = Path("plots/curves")
RUN_METRICS = Path("metrics/runs")
PREDICTIONS = Path("predictions")
PER_CLASS = Path("plots/per_class")


class Run(Record):
    """What one training run did (models/<method>/<seed>/run.json)."""

    method: str
    seed: int
    key: str  # of everything that the run was trained from (ltgc/training/runs.py)
    skipped: str | None  # why the method could not run; None where it did
    steps: int
    original: int  # images in D_o, the training split
    generated: int  # images in D_g, whether or not the method samples from it
    images_seen: int  # in all steps together; a mixed pair counts as two
    trained_parameters: int  # weights that learned in some phase, the head included; 0 for zero-shot
    val_accuracy: float | None  # mean of the classes, percent, at the end; None without a validation split
    drawings_weight: float | None = None  # what the probe left of train.generated.share; None: no probe
    head_alpha: float | None = (
        None  # of the first head: texts 0, probe on photos 1, with drawings 2; None: not chosen
    )
    alpha: float | None = None  # of the weights between the first, 0, and trained, 1; None: not interpolated


class RunMetrics(Record):
    """Test metrics of one run in percent (metrics/runs/<method>/<seed>.json; §4.1).

    All None where the run was skipped; a shot group's is None where no class is in the group.
    """

    all: float | None = None  # top-1 over all test images
    many: float | None = None  # mean per-class accuracy of the shot group
    medium: float | None = None
    few: float | None = None
    harmonic_mean: float | None = None  # of the per-class accuracies; 0 where one of them is 0
    worst_class: float | None = None
    ece: float | None = None  # expected calibration error, 15 bins
    skipped: str | None = None


class Prediction(Record):
    """What one run says of one test image (predictions/<method>/<seed>.csv)."""

    path: str  # ImageRecord.path
    label: int
    prediction: int
    confidence: float  # probability of the predicted class


class ClassAccuracy(Record):
    """Test accuracy of one class in one run (plots/per_class/<method>/<seed>.csv)."""

    label: int
    class_name: str
    train: int
    shot: ShotGroup
    accuracy: float  # percent


class MethodCosts(Record):
    """What a user needs for one method of a comparison: `costs` of results/<comparison>.json.

    Calls and money are those of all stages before training that the method reads, so methods share them.
    """

    trained_parameters: int
    seconds: float | None  # of training, mean of the seeds; as fast as the machine was. None: not noted
    drawings: int  # Run.generated of the first seed
    calls: int  # to the LLM and the vision model
    usd: float | None  # at the prices of the models that were asked; None: one has no price
    hosted_usd: float | None  # the same calls, tokens and drawings at the prices of hosted models
