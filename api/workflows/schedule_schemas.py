"""What clients send and read about the schedules of registered workflows."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from api.prefect.schedules import ScheduleRow
from flows.contract.field_types import OneLine, Strict

SLUG_PATTERN, LONGEST_SLUG = r"^[a-z0-9][a-z0-9-]*$", 100
_KINDS = ("cron", "interval_seconds", "rrule")
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
"""Intervals are counted from here, so that the same request means the same times."""

_RRULE_START = "DTSTART:20200101T000000\n"
"""What Prefect adds to a rule without a start."""

_EXAMPLE: dict[str, JsonValue] = {
    "cron": "0 6 * * 1",
    "timezone": "Europe/Zurich",
    "parameters": {"config": {"depth": 30}},
}


class NewSchedule(Strict):
    """When a registered workflow runs by itself: exactly one of `cron`, `interval_seconds` and `rrule`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    cron: Annotated[str, OneLine] | None = Field(
        default=None, max_length=200, description="A cron expression.", examples=["0 6 * * 1"]
    )
    interval_seconds: float | None = Field(
        default=None, ge=1, le=31_536_000, description="The time between two jobs."
    )
    rrule: str | None = Field(
        default=None,
        max_length=2000,
        description="A recurrence rule (RFC 5545).",
        examples=["FREQ=WEEKLY;BYDAY=MO"],
    )
    timezone: str = Field(
        default="UTC", max_length=100, description="The time zone, by its name in the IANA database."
    )
    active: bool = Field(default=True, description="Whether it makes jobs; false pauses it.")
    only_if_changed: bool = Field(
        default=False,
        description="Plan first, by a dry run, and make no job if nothing is to be done. Needs `directory` "
        "in `parameters`, where results stay.",
    )
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="What each job sets, as in `POST /jobs`: `config`, `files`, `inputs`, `cores` and so on.",
    )

    @model_validator(mode="after")
    def _is_one_schedule(self) -> "NewSchedule":
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(_KINDS)}; given: {', '.join(given) or 'none'}")
        try:
            self.in_prefect()
        except ValidationError as error:
            raise ValueError(str(error.errors()[0]["msg"])) from error
        if self.only_if_changed and "directory" not in self.parameters:
            raise ValueError(
                "only_if_changed needs `directory` in `parameters`: in a new directory, everything is to be "
                "done"
            )
        return self

    def in_prefect(self) -> dict[str, Any]:
        """The schedule in Prefect's words."""
        made: CronSchedule | IntervalSchedule | RRuleSchedule
        if self.cron is not None:
            made = CronSchedule(cron=self.cron, timezone=self.timezone)
        elif self.rrule is not None:
            made = RRuleSchedule(rrule=_with_start(self.rrule), timezone=self.timezone)
        else:
            made = IntervalSchedule(
                interval=timedelta(seconds=self.interval_seconds or 1),
                anchor_date=_EPOCH,
                timezone=self.timezone,
            )
        return made.model_dump(mode="json")


class Schedule(BaseModel):
    """A schedule of a registered workflow, one of those that were made in Prefect included."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"slug": "weekly", **_EXAMPLE}]})

    slug: str | None = Field(description="Its name in the workflow; null if it was made in Prefect without.")
    cron: str | None = None
    interval_seconds: float | None = None
    rrule: str | None = None
    timezone: str | None
    active: bool = Field(description="Whether it makes jobs.")
    only_if_changed: bool = Field(description="Whether it makes a job only if something is to be done.")
    parameters: dict[str, Any] = Field(
        description="What each job sets. `config` is merged with that of the version at the time."
    )

    @classmethod
    def of(cls, row: ScheduleRow) -> "Schedule":
        interval, rrule = row.schedule.get("interval"), row.schedule.get("rrule")
        return cls(
            slug=row.slug,
            cron=row.schedule.get("cron"),
            interval_seconds=interval,
            rrule=None if rrule is None else rrule.removeprefix(_RRULE_START),
            timezone=row.schedule.get("timezone"),
            active=row.active,
            only_if_changed=plans_first(row),
            parameters=without_plan(row.parameters),
        )


class ScheduleList(BaseModel):
    """The schedules of a registered workflow."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [{"slug": "weekly", **_EXAMPLE}]}]})

    items: list[Schedule]


def plans_first(row: ScheduleRow) -> bool:
    """Whether its flow runs are dry runs that decide whether there is a job."""
    return row.slug is not None and row.parameters.get("dry_run") is True


def _with_start(rrule: str) -> str:
    return rrule if "DTSTART" in rrule else _RRULE_START + rrule


def without_plan(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the jobs of a schedule set."""
    return {name: value for name, value in parameters.items() if name != "dry_run"}
