"""Why something that a model made is not used: the words that artifacts give as `reason` and metrics count."""

from typing import Literal, NewType

# Of a reply, or of an entry of one.
ReplyReason = Literal[
    "empty",
    "only_thought",
    "refused",
    "truncated",
    "wrong_class",
    "too_long",
    "not_in_template",
    "has_scene",
    "unknown_class",
    "several_classes",
    "unanswered",
]
HTTPReason = NewType("HTTPReason", str)  # "http_500": every status of an HTTP error is a word of its own
# Of a request.
RequestReason = (
    Literal[
        "refused",
        "too_long",
        "timeout",
        "connection_lost",
        "malformed_reply",
        "no_image",
        "only_thought",
        "flex_unavailable",
    ]
    | HTTPReason
)
# Of a description that is in the template, and yet left out of the list.
ListReason = Literal["duplicate", "repeats", "over_target"]
ReviewReason = Literal["rejected_in_review"]  # by a person (review.csv)
