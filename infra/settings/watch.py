"""Alarms, budget and logs."""

from typing import Literal

from pydantic import Field

from infra.settings.strict import StrictModel


class Watch(StrictModel):
    """Who gets alarms, the budget, and how long logs are kept."""

    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
    monthly_budget_usd: float = Field(
        default=300, gt=0, description="An e-mail at 80 %, and when 100 % is forecast."
    )
    log_days: Literal[1, 3, 7, 14, 30, 60, 90, 180, 365] = Field(
        default=30, description="How long logs are kept."
    )
