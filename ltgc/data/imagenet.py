"""ImageNet's two pairs of classes that everybody's file of class names calls by one name."""

from collections.abc import Sequence

from ltgc.pipeline.terminal import console

# WordNet id -> (the name in OpenAI's list, which it shares with another class, the first word of its own synset).
# n03773504 stays missile: a rocket. n04008634: a weapon that is thrown and has no drive of its own.
# n04356056 stays sunglasses: spectacles. n04355933: a burning glass, by WordNet; its photos show sunglasses, too.
SENSES = {"n04008634": ("missile", "projectile"), "n04355933": ("sunglasses", "sunglass")}


def told_apart(names: Sequence[str], wordnet_ids: Sequence[str | None]) -> list[str]:
    """`names` (by label), where a name of SENSES stands twice, with a word of its own for one of them."""
    renamed = list(names)
    for label, wordnet_id in enumerate(wordnet_ids):
        shared, own = SENSES.get(wordnet_id or "", ("", ""))
        if shared and names[label] == shared and names.count(shared) == 2:
            renamed[label] = own
            console.print(f"class names: {shared!r} stands twice; {wordnet_id} is called {own!r}", soft_wrap=True)
    return renamed
