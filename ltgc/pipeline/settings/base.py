"""What every section of params.yaml has in common."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _with_prefix(pin: str) -> str:
    return f"sha256:{pin}" if len(pin) == 64 else pin


# What pins a model: a hub's commit (40 hex digits) or a checksum (64). The prefix may be left out: with it
# the line in params.yaml has more than the 80 characters at which DVC breaks it.
_CHECKSUM = "(sha256:)?[0-9a-f]{64}"
Sha256 = Annotated[str, Field(pattern=f"^{_CHECKSUM}$"), AfterValidator(_with_prefix)]
Revision = Annotated[str, Field(pattern=f"^([0-9a-f]{{40}}|{_CHECKSUM})$"), AfterValidator(_with_prefix)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
