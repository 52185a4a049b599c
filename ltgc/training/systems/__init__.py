"""Methods that need more than a row of METHODS."""

from __future__ import annotations

from ltgc.pipeline.settings.training import Method
from ltgc.training.phases import System
from ltgc.training.systems import lpt, rac, vl_ltr

SYSTEMS: dict[Method, System] = {
    "lpt": lpt.phases,
    "ltgc_lpt": lpt.phases,
    "vl_ltr": vl_ltr.phases,
    "ltgc_vl_ltr": vl_ltr.phases,
    "rac": rac.phases,
    "ltgc_rac": rac.phases,
}
