"""Replies as real models write them come out as plain Template 1 and 2, or with the reason why not."""

import csv
import re
from collections import Counter

import pytest
from helpers.paths import SHARED

from graphs.parse.entries import MAX_ENTRIES, cut_entries
from graphs.parse.reply import REASONS, Unusable
from graphs.parse.template_1 import parse_description
from graphs.parse.template_2 import parse_features, template_text

REPLIES = SHARED / "data/llm_replies"
MARKUP = re.compile(r"[{}*\"\[\]`#]|distinctive features|specific scenes?|^\d|\s\s|,,|\.\.|,\.")


def real_replies(name: str) -> list[tuple[str, str]]:
    """(class name, reply) of every reply; the class's name as most replies of its label write it."""
    path = REPLIES / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row["label"], row["description"]) for row in csv.DictReader(file)]
    names: dict[str, Counter[str]] = {}
    for label, reply in rows:
        if match := re.search(r"photo of the class (\w+)", reply):
            names.setdefault(label, Counter())[match[1]] += 1
    return [(names[label].most_common(1)[0][0], reply) for label, reply in rows]


def test_real_extended_replies_come_out_as_class_features_and_scene_without_markup():
    replies = real_replies("extended")
    descriptions = [(n, r) for n, r in replies if re.match(r"(\d+\. )?A photo of the class", r)]
    assert len(descriptions) == len(replies) - 1
    parsed = 0
    for name, reply in descriptions:
        found = parse_description(reply, name)
        parsed += 1
        assert found.text == f"A photo of the class {name}, {found.features} {found.scene}."
        assert len(found.features.split()) > 2 and len(found.scene.split()) > 2
        assert not MARKUP.search(found.text), found.text
    assert parsed >= 0.99 * len(descriptions)


def test_what_is_no_description_among_the_real_replies_is_refused():
    replies = [(n, r) for n, r in real_replies("extended") if not re.match(r"(\d+\. )?A photo of the class", r)]
    assert replies
    for name, reply in replies:
        with pytest.raises(Unusable, match="not_in_template"):
            parse_description(reply, name)


def test_most_real_existing_replies_are_read_though_half_of_them_are_prose():
    replies = real_replies("existing")
    parsed = []
    for name, reply in replies:
        try:
            parsed.append(parse_description(reply, name, prose=True))
        except Unusable as reason:
            assert str(reason) == "not_in_template"
    assert len(parsed) >= 0.95 * len(replies)
    for found in parsed:
        assert not re.search(r"[{}*\"]|distinctive features|specific scene", found.text), found.text


@pytest.mark.parametrize(
    "reply, features, scene",
    [
        ("A photo of the class rose, {with red petals}{in a garden}", "with red petals", "in a garden"),
        ("3) **A photo of the class rose**, *red petals*, *in a garden*.", "red petals", "in a garden"),
        ('- "A photo of the class [rose], [red petals][in a garden]."', "red petals", "in a garden"),
        ("**A photo of the class rose** with red petals in a garden", "with red petals", "in a garden"),
        ("A photo of the class ROSE: with red petals, in fresh snow", "with red petals", "in fresh snow"),
        ("A photo of the class rose, with red petals in fresh snow.", "with red petals", "in fresh snow"),
        ("A photo of the class rose, {red petals}, {a meadow}.", "red petals", "in a meadow"),
        (
            "A photo of the class rose, with distinctive features such as red petals and a stem, in specific "
            "scenes where bees fly.",
            "with red petals and a stem",
            "where bees fly",
        ),
        (
            "A photo of the class rose shows a bloom on its stem. In the specific scene, the rose stands in rain.",
            "shows a bloom on its stem",
            "in a scene where the rose stands in rain",
        ),
        ("<think>A photo?</think>A photo of the class rose, {red}{in a garden}", "red", "in a garden"),
    ],
)
def test_every_form_models_write_template_1_in_is_read(reply, features, scene):
    found = parse_description(reply, "rose")
    assert (found.features, found.scene) == (features, scene)


@pytest.mark.parametrize(
    "reply, reason",
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("<think>Let me see. A photo of the class rose, {red}{in a garden}", "empty"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("I cannot identify people in images.", "refused"),
        ("Sorry, as an AI I do not draw.", "refused"),
        (
            "Sure! Here are some {distinctive features} and {specific scenes} for the class rose:",
            "not_in_template",
        ),
        ("A photo of the class rose:", "not_in_template"),
        ("A photo of the class rose", "not_in_template"),
        ("A photo of the class rose, with red petals.", "not_in_template"),
        ("A photo of the class rose, {distinctive features}{in specific scenes}.", "not_in_template"),
        ("Would you like a photo of the class rose, with red petals in a garden?", "not_in_template"),
        ("A photo of the class rose, with red petals in a garden, shall I go on?", "not_in_template"),
        ("Let me know if you need more photos of the class rose in other gardens!", "not_in_template"),
        ("The rose is a popular flower in gardens.", "not_in_template"),
        ("一张玫瑰在花园里的照片。", "not_in_template"),
        ("A photo of the class tulip, {red petals}{in a garden}.", "wrong_class"),
        ("A photo of the class rose mallow, with red petals in a garden.", "wrong_class"),
        ("A photo of the class rosemary, with blue petals in a garden.", "wrong_class"),
        ("A photo of the class rose, {" + "very " * 300 + "red petals}{in a garden}", "too_long"),
    ],
)
def test_what_is_no_description_gives_the_reason(reply, reason):
    with pytest.raises(Unusable) as unusable:
        parse_description(reply, "rose")
    assert str(unusable.value) == reason
    assert reason in REASONS


@pytest.mark.parametrize(
    "name",
    [
        "sweet_pepper",
        'a "quoted" {braced} name',
        "../../etc/passwd",
        "🌸",
        "🌸 rose",
        "玫瑰",
        "x" * 300,
        "C++ (lang)",
    ],
)
def test_any_class_name_survives_its_own_template(name):
    found = parse_description(f"1. A photo of the class {name}, {{red petals}}{{in a garden}}.", name)
    assert found.text == f"A photo of the class {name}, red petals in a garden."
    assert parse_features(f"A photo of the class {name} with {{red petals}}{{thorns}}.", name) == [
        "red petals",
        "thorns",
    ]


@pytest.mark.parametrize(
    "reply",
    [
        "1. A photo of the class rose, {a}{b}.\n2. A photo of the class rose, {c}{d}.",
        "- A photo of the class rose, {a}{b}.\n\n- A photo of the class rose, {c}{d}.\n",
        "A photo of the class rose, {a}{b}.\nA photo of the class rose,\n{c}\n{d}.",
        "1. A photo of the class rose, {a}{b}. 2. A photo of the class rose, {c}{d}.",
        '```json\n["A photo of the class rose, {a}{b}", "A photo of the class rose, {c}{d}"]\n```',
        '[{"text": "A photo of the class rose, {a}{b}"}, {"text": "A photo of the class rose, {c}{d}"}]',
        '"A photo of the class rose, {a}{b}.",\n"A photo of the class rose, {c}{d}.",',
    ],
)
def test_a_list_is_split_into_its_entries_however_it_is_written(reply):
    found = [parse_description(entry, "rose") for entry in cut_entries(reply)]
    assert [(f.features, f.scene) for f in found] == [("a", "in b"), ("c", "in d")]


def test_remarks_around_a_list_stay_apart_from_its_entries():
    reply = "Sure! Here are more:\n\n1. A photo of the class rose, {a}{b}.\n\nLet me know if you want others."
    assert [entry for entry in cut_entries(reply) if "photo of" in entry] == ["A photo of the class rose, {a}{b}."]


@pytest.mark.parametrize(
    "reply",
    [
        "A photo of the class rose, {red petals}{in a garden}.\n" * 2_000,
        "A photo of the class rose, " + "with a " * 100_000,
        "{" * 1_000_000,
        "* " * 500_000,
        '"A photo of ' * 50_000,
        "[" * 200_000 + '"]',
        "in a " * 200 + "the distinctive features such as " * 20_000,
    ],
    ids=range(7),
)
def test_a_runaway_reply_is_cut_and_costs_no_more_than_its_length(reply):
    assert len(cut_entries(reply)) <= MAX_ENTRIES
    for read in (parse_description, parse_features):
        try:
            read(reply, "rose")
        except Unusable as reason:
            assert str(reason) in REASONS


@pytest.mark.parametrize(
    "reply, features",
    [
        ("A photo of the class rose with {red petals}{thorny stems}.", ["red petals", "thorny stems"]),
        ("Sure!\n\n**A photo of the class rose with petals, thorns, and hips.**", ["petals", "thorns", "hips"]),
        ("1. A photo of the class rose, with {red petals}, {red petals}, {hips}", ["red petals", "hips"]),
        ("A photo of the class rose with distinctive features such as red petals", ["red petals"]),
    ],
)  # fmt: skip
def test_template_2_is_read_as_a_list_of_features(reply, features):
    found = parse_features(reply, "rose")
    assert [re.sub("^with ", "", feature) for feature in found] == features
    assert template_text("rose", found) == f"A photo of the class rose with {', '.join(found)}."


@pytest.mark.parametrize(
    "reply, reason",
    [
        ("", "empty"),
        ("I'm sorry, I can't.", "refused"),
        ("The rose has red petals.", "not_in_template"),
        ("A photo of the class rose with {feature 1}{feature 2}{...}.", "not_in_template"),
        ("A photo of the class rose.", "not_in_template"),
        ("A photo of the class tulip with {red petals}.", "wrong_class"),
        ("A photo of the class rose with {red petals}{in a sunny garden}.", "has_scene"),
        ("A photo of the class rose with red petals, surrounded by green leaves", "has_scene"),
    ],
)
def test_a_template_that_cannot_be_used_gives_the_reason(reply, reason):
    with pytest.raises(Unusable, match=f"^{reason}$"):
        parse_features(reply, "rose")


@pytest.mark.parametrize("said", ["crane (the bird)", "crane", "Crane, the bird", "cranes"])
def test_a_class_with_a_hint_is_named_with_or_without_it(said):
    found = parse_description(
        f"A photo of the class {said}, {{with long legs}}{{in a marsh}}.", "crane (the bird)"
    )
    assert found.text == "A photo of the class crane (the bird), with long legs in a marsh."
