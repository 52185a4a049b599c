"""docs/params.md: every key of params.yaml, from the schema (ltgc/params.py) and the comments of params.yaml.

python -m docs.params        # writes the page; a test holds page and schema together
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from ltgc.pipeline.params import PARAMS, Params

PAGE = Path("docs/params.md")
HEAD = """# Every key of params.yaml

Made by `python -m docs.params` from the schema in `ltgc/params.py` and the comments in `params.yaml`; do not edit.
The default is what `params.yaml` holds. A mistyped or unknown key is an error that names it. DVC runs the stages
again that read a key (last column); `dvc exp run -S train.lr=0.001` changes one for one run.
"""
# Sections with the same keys as another one: the comment is written once.
SAME_KEYS = {"vision": "llm", "t2i": "llm"}


def page(params: Path = PARAMS, pipeline: Path = Path("dvc.yaml")) -> str:
    """The page as Markdown. Raises KeyError naming a key of params.yaml without a comment."""
    yaml = YAML()
    values = yaml.load(params.read_text(encoding="utf-8"))
    stages = yaml.load(pipeline.read_text(encoding="utf-8"))["stages"]
    schema = Params.model_json_schema()
    sections: dict[str, list[str]] = {}
    for key, value, comment in _leaves(values, ()):
        name = ".".join(key)
        comment = comment or _inherited(values, key)
        if not comment:
            raise KeyError(f"{params}: {name} has no comment")
        cells = (f"`{name}`", _kind(schema, key), _default(value), comment, _readers(stages, name))
        title = key[0] if len(key) > 1 else "lists"
        sections.setdefault(title, []).append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    tables = [
        f"\n## {title}\n\n| key | values | default | effect | read by |\n|---|---|---|---|---|\n" + "\n".join(rows)
        for title, rows in sections.items()
    ]
    return HEAD + "\n".join(tables) + "\n"


def _leaves(values: CommentedMap, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    """(key, value, comment) of each key that holds no further keys; a mapping on one line counts as one."""
    for key, value in values.items():
        path = (*above, str(key))
        if isinstance(value, CommentedMap) and not value.fa.flow_style() and path != ("prices",):
            yield from _leaves(value, path)
        else:
            yield path, value, _comment(values, key)


def _comment(values: CommentedMap, key: str) -> str:
    tokens = [token for token in values.ca.items.get(key, []) if token is not None and not isinstance(token, list)]
    lines = [line.strip() for token in tokens for line in token.value.strip("\n").split("\n")]
    # Comments on lines of their own belong to what follows.
    return lines[0].removeprefix("#").strip() if lines and lines[0].startswith("#") else ""


def _inherited(values: CommentedMap, key: tuple[str, ...]) -> str:
    section: Any = values.get(SAME_KEYS.get(key[0], ""), {})
    return _comment(section, key[-1]) if key[-1] in section else ""


def _kind(schema: dict[str, Any], key: tuple[str, ...]) -> str:
    """What the key may hold, in words."""
    node: dict[str, Any] = schema
    for part in key:
        node = _resolved(schema, node)["properties"][part]
    return _words(schema, node)


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for alternative in node.get("anyOf", [node]):
        if reference := alternative.get("$ref"):
            return schema["$defs"][reference.rpartition("/")[2]]
    return node


def _words(schema: dict[str, Any], node: dict[str, Any]) -> str:
    if "anyOf" in node:
        return " or ".join(_words(schema, alternative) for alternative in node["anyOf"])
    if "enum" in node:
        return " · ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    kind = node.get("type", "mapping")
    if kind == "array":
        inner = node.get("items") or (node.get("prefixItems") or [{}])[0]
        return "list of " + _words(schema, inner)
    words = {
        "integer": "integer",
        "number": "number",
        "string": "text",
        "boolean": "true · false",
        "object": "mapping",
    }
    limits = [
        f"{sign} {node[limit]:g}"
        for limit, sign in {
            "minimum": "≥",
            "exclusiveMinimum": ">",
            "maximum": "≤",
            "exclusiveMaximum": "<",
        }.items()
        if limit in node
    ]
    return " ".join([words.get(kind, kind), *limits])


def _default(value: Any) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, CommentedMap):
        return "`" + ", ".join(value) + "`" if value else "`{}`"
    return f"`{list(value) if isinstance(value, list) else value}`"


def _readers(stages: dict[str, Any], name: str) -> str:
    readers = []
    for stage, what in stages.items():
        keys = [key for key in what.get("params", []) if isinstance(key, str)]
        uses = any(name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.") for key in keys)
        if uses or f"${{{name}}}" in str(what.get("matrix", "")):
            readers.append(stage)
    return ", ".join(readers) or "–"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
