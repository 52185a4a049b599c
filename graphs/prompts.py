"""What is said to the models. Templates 1 and 2 are the paper's; the words around them are ours.

A class name is untrusted text: it is only ever put between other words, on one line. A question that is asked
again says what is different this time, so that it is another question for the model and for the store.
"""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from graphs.parse.reply import REASONS, one_line


def template_1(class_name: str) -> str:
    return f"A photo of the class {one_line(class_name)}, {{distinctive features}}{{in specific scenes}}"


def template_2(class_name: str) -> str:
    return f"A photo of the class {one_line(class_name)} with {{feature 1}}{{feature 2}}{{...}}"


def taxonomy(context: str | None) -> str:
    """The wider group of a class, for names that a model may not know; empty where the group is not known."""
    return f" In the wider taxonomy it belongs to {one_line(context)}." if context else ""


def describe(class_name: str, image_url: str, context: str | None = None) -> list[BaseMessage]:
    """Prompt 1: an image, to be described in Template 1 (§3.1.1)."""
    text = f"""Please describe this image of the class "{one_line(class_name)}" in one sentence, in \
Template 1.{taxonomy(context)}

Template 1: {template_1(class_name)}

Fill the first brace with how it looks (shape, colours, parts), the second with where it is. \
Say only what can be seen. Reply with the sentence alone."""
    return [HumanMessage([{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image_url}}])]


def class_list(class_names: Sequence[str]) -> str:
    """All classes, a line each. For the 8,142 of iNaturalist that is 180 kB, made once for all questions."""
    return "\n".join(map(one_line, class_names))


def classify(class_list: str, image_url: str) -> list[BaseMessage]:
    """Which class an image shows (Table 3). The list comes first: servers that cache prefixes charge it less."""
    text = f"""These are the names of all classes:
{class_list}

Which of these classes does the image show? Reply with the name of one class alone, as it stands above."""
    return [HumanMessage([{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image_url}}])]


def extend(
    class_name: str, descriptions: Sequence[str], wanted: int, stalled: int, context: str | None = None
) -> list[BaseMessage]:
    """Prompt 2: what is missing from the list so far (§3.1.2). stalled: replies in a row with nothing new."""
    name = one_line(class_name)
    known = f'Descriptions of images of the class "{name}" so far:\n{numbered(descriptions)}\n\nBesides these, '
    text = f"""{known if descriptions else ""}please list other distinctive features and specific scenes that \
images of the class "{name}" may show: up to {wanted} descriptions, each in Template 1.{taxonomy(context)}

Template 1: {template_1(class_name)}

One description a line, no headings, no remarks. None may say what another one says."""
    if stalled:
        text += (
            f"\n\nThe last {stalled} of your replies brought nothing new. Think of other parts, colours, ages "
            "and poses, and of other places, weather, seasons and times of day."
        )
    return [HumanMessage(text)]


def repetition_check(class_name: str, descriptions: Sequence[str], known: Sequence[str] = ()) -> list[BaseMessage]:
    """Prompt 3: the list without what repeats (§3.1.2). known: what it may not repeat, and is not on it."""
    name = one_line(class_name)
    lines = "\n".join(f"- {one_line(description)}" for description in known)
    before = f'Known descriptions of the class "{name}":\n{lines}\n\n' if known else ""
    known_ones = "one of the known ones or " if known else ""
    text = f"""{before}Here is a list of {"further " if known else ""}descriptions of the class "{name}":
{numbered(descriptions)}

Please exclude the repetitive ones: those with the same distinctive features and the same specific scenes as \
{known_ones}an earlier one of the list. Return the list that remains, one description a line, word for word as it \
stands above, with its number. Add nothing."""
    return [HumanMessage(text)]


def summarize(class_name: str, descriptions: Sequence[str], context: str | None = None) -> list[BaseMessage]:
    """Prompt 4: the class feature template (§3.1.3)."""
    name = one_line(class_name)
    known = f'Descriptions of images of the class "{name}":\n{numbered(descriptions)}\n\n'
    text = f"""{known if descriptions else ""}Please use Template 2 to summarize the most distinctive features \
of the class "{name}": the few by which it is told from similar classes.{taxonomy(context)}

Template 2: {template_2(class_name)}

Each brace is one short feature that can be seen, three to six in all. No places, no backgrounds. \
Reply with the one line in Template 2 alone."""
    return [HumanMessage(text)]


def refine(
    class_name: str, tried: Sequence[tuple[str, str | None]], unusable: str | None, number: int
) -> list[BaseMessage]:
    """Prompt 5: a description whose image does not look like the class (§3.1.3).

    tried: (description, why it could not be drawn, or None if its image scored low), the latest last.
    unusable: why the model's last refinement could not be used, if it could not; number: of refinements asked for.
    """
    name = one_line(class_name)
    description, reason = tried[-1]
    trouble = (
        f"no image could be drawn from it ({reason})" if reason else "the image drawn from it shows little of it"
    )
    text = f"""This description does not represent the class "{name}": {trouble}.

{description}

Please refine it so that the distinctive features of the class "{name}" stand out, and keep its scene. \
Reply with one description alone, in Template 1.

Template 1: {template_1(class_name)}"""
    if len(tried) > 1:
        text += f"\n\nThese were tried before and did not do either:\n{numbered([d for d, _ in tried[:-1]])}"
    if unusable:
        text += f"\n\nYour last reply could not be used: {REASONS.get(unusable, unusable)} (attempt {number})."
    return [HumanMessage(text)]


def again(question: list[BaseMessage], reply: str, reason: str, number: int) -> list[BaseMessage]:
    """`question` asked for the `number`-th time: the reply to it, and what was wrong with it."""
    text = (
        f"That reply cannot be used: {REASONS.get(reason, reason)}. "
        f"Please answer the question above once more (attempt {number}), with one sentence in the template alone."
    )
    # Some servers refuse an assistant's turn without content.
    return [*question, AIMessage(one_line(reply)[:2000] or "(no reply)"), HumanMessage(text)]


def numbered(descriptions: Sequence[str]) -> str:
    return "\n".join(f"{i}. {d}" for i, d in enumerate(descriptions, 1))
