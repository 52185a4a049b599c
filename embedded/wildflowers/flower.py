"""A flower: a value on every axis of botanical features, in a scene."""

from dataclasses import dataclass

AXES: dict[str, tuple[str, ...]] = {
    "form": ("open", "bell", "cup", "spike", "umbel", "globe"),
    "count": ("one", "three", "four", "five", "six", "many"),  # petals of an open flower, else "one"
    "shape": ("rounded", "pointed", "notched", "narrow"),  # of an open flower's petals
    "colour": ("white", "yellow", "orange", "red", "pink", "purple", "blue"),
    "accent": ("yellow", "black", "green", "white", "brown"),  # centre, rim, base, tip, middle or collar
    "leaves": ("broad", "grassy", "feathery", "toothed"),
}
SCENES = (
    "meadow",
    "snow",
    "forest",
    "desert",
    "pond",
    "dusk",
    "brick",
    "sky",
    "rocks",
    "fence",
    "night",
    "autumn",
)


@dataclass(frozen=True)
class Flower:
    """One flower in one place: a value on every axis, and a scene."""

    form: str
    count: str
    shape: str
    colour: str
    accent: str
    leaves: str
    scene: str
