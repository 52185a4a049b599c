"""One training run, from its inputs to a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from ltgc.classifier import tuning
from ltgc.classifier.head import HeadSource, initial_bias, initial_head
from ltgc.classifier.inference import class_mean_accuracy
from ltgc.classifier.network import Classifier
from ltgc.pipeline.artifacts.runs import Run
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.training import WITHOUT_DRAWINGS, TrainSettings
from ltgc.pipeline.terminal import console
from ltgc.training import interpolation
from ltgc.training.first_head import probe_first, weigh_drawings
from ltgc.training.inputs import Inputs
from ltgc.training.loop import Monitor, Resume, train
from ltgc.training.methods import METHODS, Recipe
from ltgc.training.phases import Setup, TrainingPhase, single_phase
from ltgc.training.plan import TrainingSet
from ltgc.training.runs import RunId
from ltgc.training.state import Row
from ltgc.training.systems import SYSTEMS


def fit(
    run_id: RunId, inputs: Inputs, train_settings: TrainSettings, show: Callable[[Row], None] = lambda row: None
) -> tuple[Run, Classifier | None]:
    """Train the run `run_id`: what was done, and the classifier, None where the run was skipped.

    show: is given each row of the training curve. Raises LTGCError for settings that the data or the method do not
    allow, and when the loss is no longer a number.
    """
    recipe = METHODS[run_id.method]
    settings = train_settings.of(run_id.method)
    photos = inputs.photos("train")
    drawings = [] if run_id.method in WITHOUT_DRAWINGS else inputs.drawings(settings.generated)
    run = Run(
        method=run_id.method,
        seed=run_id.seed,
        key=run_id.key,
        skipped=None,
        steps=0,
        original=len(photos),
        generated=len(drawings),
        images_seen=0,
        trained_parameters=0,
        drawings_weight=None,
        head_alpha=None,
        alpha=None,
        val_accuracy=None,
    )
    if recipe.needs_generated and not drawings:
        if inputs.accepted:
            raise LTGCError(
                "train.generated.per_class: leaves no generated image to train on; raise it, or set null"
            )
        reason = "needs generated images, and generated/accepted has none (extend.target: 0?)"
        return run.model_copy(update={"skipped": reason}), None

    if recipe.needs_starts and not inputs.strengths(drawings).any():
        reason = "needs drawings that start from photos (t2i.start_strengths)"
        return run.model_copy(update={"skipped": reason}), None

    torch.manual_seed(run_id.seed)
    classifier = initial_classifier(recipe, settings, inputs)
    monitor = Monitor(_validation(classifier, settings, inputs), show)
    if recipe.i is None:
        return run.model_copy(update={"val_accuracy": monitor.validate()}), classifier
    settings, weight = weigh_drawings(recipe, settings, classifier, drawings, inputs)
    head_alpha = None
    if settings.probe_first:
        head_alpha = probe_first(recipe, settings, classifier, drawings, inputs)
    images = photos + drawings
    data = TrainingSet(*inputs.load(images), original=len(photos), strengths=inputs.strengths(images))
    setup = Setup(recipe, settings, inputs, images, data, classifier)
    run, weights = _train(run, SYSTEMS.get(run_id.method, single_phase)(setup), run_id, setup, monitor)
    if settings.interpolate is not None:
        alpha, accuracy = _interpolate(classifier, weights, run.val_accuracy, monitor.validate, settings, inputs)
        run = run.model_copy(update={"alpha": alpha, "val_accuracy": accuracy})
    return run.model_copy(update={"drawings_weight": weight, "head_alpha": head_alpha}), classifier


def _train(
    run: Run, phases: Iterator[TrainingPhase], run_id: RunId, setup: Setup, monitor: Monitor
) -> tuple[Run, dict[str, Tensor]]:
    """Train the phases; returns what was done, and the weights that the last of them began with."""
    weights: dict[str, Tensor] = {}
    learned: set[nn.Parameter] = set()
    for number, phase in enumerate(phases):
        weights = interpolation.weights(setup.classifier)
        learned.update(value for value in phase.network.parameters() if value.requires_grad)
        curve = train(
            phase.network,
            phase.plan,
            setup.data,
            phase.settings,
            objective=phase.objective,
            monitor=monitor.after(run.steps),
            resume=Resume(run_id.checkpoint(number), run_id.key),
        )
        done = {
            "steps": run.steps + phase.settings.steps,
            "images_seen": run.images_seen + phase.plan.images_seen,
            "trained_parameters": sum(value.numel() for value in learned),
            "val_accuracy": curve[-1]["val_accuracy"],
        }
        run = run.model_copy(update=done)
    return run, weights


def _interpolate(
    classifier: Classifier,
    start: Mapping[str, Tensor],
    trained: float | None,
    validate: Callable[[], float | None],
    settings: TrainSettings,
    inputs: Inputs,
) -> tuple[float, float | None]:
    """Move the trained classifier as train.interpolate says; returns alpha and the accuracy on validation.

    trained: the accuracy of the classifier as it is.
    """
    alpha = settings.interpolate
    if alpha == "validation":
        if trained is not None and not inputs.unvalidated:
            return interpolation.choose(classifier, start, trained, validate)
        alpha = interpolation.SAFE
        console.print(
            f"train.interpolate: {inputs.unvalidated} classes have no validation image: {alpha} is taken"
        )
    assert isinstance(alpha, float)
    interpolation.interpolate(classifier, start, interpolation.weights(classifier), alpha)
    return alpha, validate()


def initial_classifier(recipe: Recipe, settings: TrainSettings, inputs: Inputs) -> Classifier:
    clip = inputs.clip
    source = HeadSource(
        clip,
        inputs.classes,
        inputs.templates,
        descriptions=lambda: inputs.descriptions,
        photos=lambda: inputs.features(inputs.photos("train")),
    )
    head = initial_head(settings.head_init, source)
    visual = deepcopy(clip.model.visual)  # tuned in place, and the next run starts from it, too
    if recipe.i:
        visual = tuning.apply(visual, settings)
    scale = clip.logit_scale if settings.logit_scale is None else settings.logit_scale
    bias = initial_bias(settings.head, len(inputs.classes))
    return Classifier(visual, head, scale, bias).to(clip.device).eval()


def _validation(classifier: Classifier, settings: TrainSettings, inputs: Inputs) -> Callable[[], float | None]:
    images, labels = inputs.load(inputs.photos("val"))
    return lambda: class_mean_accuracy(classifier, images, labels, settings.batch_size, settings.workers)
