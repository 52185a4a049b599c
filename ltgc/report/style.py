"""What the page calls methods and shot groups, and their colours."""

from typing import Any

METHODS = {
    "clip_zero_shot": "CLIP zero-shot",
    "clip_zero_shot_names": "CLIP zero-shot, bare names",
    "clip_finetune": "CLIP fine-tune",
    "no_balancemix": "No BalanceMix",
    "balanced_sample": "Balanced sampling",
    "mixup": "Mixup",
    "balancemix": "BalanceMix",
    "balanced_photos": "Balanced photos",
    "ltgc_plus": "LTGC+",
    "lift": "LIFT",
    "ltgc_lift": "LTGC with LIFT",
    "lift_plus": "LIFT+",
    "ltgc_lift_plus": "LTGC with LIFT+",
    "lmm": "Vision model, asked",
}
# The first of them that ran is what the page is about, held against the control.
OURS = ("ltgc_plus", "balancemix")

SHOT_COLOURS = {"many": "#4c8bf5", "medium": "#8e6bd8", "few": "#e0663f"}
VERDICT_COLOURS = {"real": "#9aa0a6", "accepted": "#2f9e62", "turned down": "#d0574a"}
# Drawn in colour: BalanceMix, our recipe and the usual controls. The others stay in the background.
METHOD_STYLES: dict[str, dict[str, Any]] = {
    "clip_zero_shot": {"color": "#9aa0a6", "marker": "x"},
    "clip_zero_shot_names": {"color": "#9aa0a6", "marker": "1"},
    "clip_finetune": {"color": "#4c8bf5", "marker": "o", "zorder": 3},
    "no_balancemix": {"color": "#9aa0a6", "marker": "+"},
    "balanced_sample": {"color": "#9aa0a6", "marker": "_"},
    "mixup": {"color": "#9aa0a6", "marker": "|"},
    "balancemix": {"color": "#e0663f", "marker": "D", "zorder": 4},
    "balanced_photos": {"color": "#1a5fd0", "marker": "s", "zorder": 3},
    "ltgc_plus": {"color": "#2f9e62", "marker": "P", "zorder": 4},
    "lift": {"color": "#9aa0a6", "marker": "1"},
    "ltgc_lift": {"color": "#9aa0a6", "marker": "2"},
    "lift_plus": {"color": "#9aa0a6", "marker": "3"},
    "ltgc_lift_plus": {"color": "#9aa0a6", "marker": "4"},
}
OTHER_STYLE: dict[str, Any] = {"color": "#9aa0a6", "marker": "."}


def method_name(method: str) -> str:
    """A method's name for people; its own where the page knows no better one."""
    return METHODS.get(method, method)
