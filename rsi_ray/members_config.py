"""The part of a sweep's file that says which members of a candidate are trained side by side."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from safety import StrictModel
from safety.document import whole_number

Rate = Annotated[float, Field(gt=0)]
Seeds = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=1_000_000)]


class MembersConfig(StrictModel):
    """What of a candidate is trained side by side, in one trial; one member if left out."""

    learning_rates: list[Rate] = Field(
        default=[],
        description="two or more peaks of the schedule, of which the best is taken; if left out, the "
        "training's own",
    )
    seeds: Seeds = Field(
        default=1,
        description="trainings with each learning rate; the median of their scores counts, and its weights",
    )
    stacked: bool | None = Field(
        default=None,
        description="whether they are trained as one batch, where the model can be; if left out, where that "
        "is faster",
    )
