"""Usage over time and by whom: a chart, the table behind it, and the same table as CSV."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import reports
from sealpack.settlement.console import charts, lists
from sealpack.settlement.console.app import OFFICE, Console, Page
from sealpack.settlement.console.charts import Chart
from sealpack.settlement.console.pages.customers import today
from sealpack.settlement.overview import usage
from sealpack.settlement.overview.usage import Amounts, Choice, Key, Names
from sealpack.settlement.plan import FIELD_WORDS, FIELDS
from sealpack.settlement.users import User

PATH = "/console/usage"
BY = {"time": "Over time", "customer": "Customers", "license": "Licenses", "model": "Models",
      "machine": "Machines"}  # fmt: skip
HEADS = {"time": "Day", "customer": "Customer", "license": "License", "model": "Model", "machine": "Machine"}
_MONTHS = 13  # that can be picked
_DAYS = 62  # what is longer is shown by month
_LONGEST = 3660  # days


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page or table is about; `period` is `YYYY-MM`, `3` or `12` months, or `days`."""

    choice: Choice
    period: str
    by: str
    meter: str

    @property
    def keys(self) -> tuple[str, ...]:
        """What the table tells apart."""
        if self.by != "time":
            return (self.by,) if self.by != "machine" else ("machine", "license")
        return ("month",) if (self.choice.last - self.choice.first).days > _DAYS else ("day",)

    @property
    def split(self) -> str:
        """What the colours of columns tell apart."""
        return "model" if self.choice.customer or self.choice.license_id else "customer"


def asked(said: Mapping[str, str], now: date) -> Asked:
    """Read the address; USAGE."""
    by, meter = said.get("by", "time"), said.get("meter", "calls")
    if by == "device":
        by = "machine"
    if by not in BY or meter not in FIELDS:
        raise SealpackError("USAGE", f"by must be one of {', '.join(BY)}, meter one of {', '.join(FIELDS)}")
    first, last, period = _days(said, now)
    tests = said.get("tests") == "yes"
    choice = Choice(first, last, said.get("customer", "")[:200], said.get("license", "")[:200], tests)
    return Asked(choice, period, by, meter)


def _days(said: Mapping[str, str], now: date) -> tuple[date, date, str]:
    wrong = SealpackError("USAGE", "that is no period", remedy="pick a month, or two days such as 2026-11-21")
    month = said.get("month") or f"{now:%Y-%m}"
    try:
        if said.get("from") or said.get("to"):
            first = date.fromisoformat(said.get("from") or said["to"])
            last = date.fromisoformat(said.get("to") or said["from"])
            if first > last or (last - first).days > _LONGEST:
                raise wrong
            return first, last, "days"
        if month in ("3", "12"):
            start = months_before(now, int(month) - 1)
            return start, _end(now), month
        start = date.fromisoformat(f"{month}-01")
    except ValueError:
        raise wrong from None
    return start, _end(start), month


def months_before(day: date, count: int) -> date:
    """The first day of the month so many months earlier."""
    number = day.year * 12 + day.month - 1 - count
    return date(max(1, number // 12), number % 12 + 1, 1)


def _end(day: date) -> date:
    return day.replace(day=monthrange(day.year, day.month)[1])


async def get_usage(console: Console, request: Request, user: User) -> Response:
    """A chart and the table behind it."""
    wanted = asked(request.query_params, today(console))

    by_time = wanted.by == "time"
    keys = (*wanted.keys, wanted.split) if by_time else wanted.keys

    def look(connection: sa.Connection) -> tuple[dict[Key, Amounts], Names]:
        return usage.totals(connection, wanted.choice, keys), usage.names(connection)

    drawn, names = await console.query(look)
    found = _joined(drawn) if by_time else drawn
    rows = _sorted(found, wanted)
    chart = _over_time(wanted, drawn, names) if by_time else _by_size(wanted, rows, names)
    page = (
        {"items": rows} if by_time else lists.page(rows, lambda row: _rank(row, wanted), lists.after(request))
    )
    months = [months_before(today(console), n) for n in range(_MONTHS)]
    return console.render(
        request, user, "usage.html", asked=wanted, chart=chart if found else None, page=page, names=names,
        months=[f"{month:%Y-%m}" for month in months], by=BY, head=HEADS[wanted.by], fields=FIELDS,
        words=FIELD_WORDS, total=_sum(found), count=len(rows),
    )  # fmt: skip


async def get_table(console: Console, request: Request, user: User) -> Response:
    """The whole table for spreadsheets."""
    wanted = asked(request.query_params, today(console))

    def look(connection: sa.Connection) -> tuple[dict[Key, Amounts], Names]:
        return usage.totals(connection, wanted.choice, wanted.keys), usage.names(connection)

    found, names = await console.query(look)
    kinds = wanted.keys
    named = [kind for kind in kinds if kind in ("customer", "machine", "model")]
    rows = [
        [
            *key,
            *(names.of(kind, key[kinds.index(kind)]) for kind in named),
            *(str(amounts[f]) for f in FIELDS),
        ]
        for key, amounts in _sorted(found, wanted)
    ]
    text = reports.as_csv([*kinds, *(f"{kind} name" for kind in named), *FIELDS], rows)
    name = f"usage-{wanted.choice.first}-{wanted.choice.last}-{wanted.by}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type="text/csv", headers=headers)


def _sorted(found: dict[Key, Amounts], wanted: Asked) -> list[tuple[Key, Amounts]]:
    """By time, else the largest first."""
    if wanted.by == "time":
        return sorted(found.items())
    return sorted(found.items(), key=lambda row: _rank(row, wanted))


def _joined(drawn: dict[Key, Amounts]) -> dict[Key, Amounts]:
    """The same without what the colours tell apart, the last part of each key."""
    found: dict[Key, Amounts] = {}
    for (*key, _), amounts in drawn.items():
        known = found.setdefault(tuple(key), dict.fromkeys(FIELDS, 0))
        for field in FIELDS:
            known[field] += amounts[field]
    return found


def _rank(row: tuple[Key, Amounts], wanted: Asked) -> lists.Key:
    return -row[1][wanted.meter], *row[0]


def _sum(found: dict[Key, Amounts]) -> Amounts:
    return {field: sum(amounts[field] for amounts in found.values()) for field in FIELDS}


# --- charts -------------------------------------------------------------------------------------------


def _title(wanted: Asked) -> str:
    words = FIELD_WORDS[wanted.meter].capitalize()
    return f"{words}, {wanted.choice.first} to {wanted.choice.last}, {BY[wanted.by].lower()}"


def _over_time(wanted: Asked, found: dict[Key, Amounts], names: Names) -> Chart:
    by_month = wanted.keys == ("month",)
    times = _months(wanted.choice) if by_month else _all_days(wanted.choice)
    place = {time: n for n, time in enumerate(times)}
    rows: dict[str, list[int]] = {}
    for (time, key), amounts in found.items():
        name = names.of(wanted.split, key)
        rows.setdefault(name, [0] * len(times))[place[time]] += amounts[wanted.meter]
    used = {name: row for name, row in rows.items() if any(row)}
    ticks = times if by_month else [_tick(time, len(times)) for time in times]
    series = charts.split(used)
    return charts.columns(_title(wanted), times, ticks, series)


def _tick(day: str, count: int) -> str:
    """Each day's number in a month; months by name where there are more."""
    if count <= 31:
        return str(int(day[8:]))
    return day[5:] if day[8:] in ("01", "08", "15", "22") else ""


def _all_days(choice: Choice) -> list[str]:
    count = (choice.last - choice.first).days + 1
    return [(choice.first + timedelta(days=n)).isoformat() for n in range(count)]


def _months(choice: Choice) -> list[str]:
    found, month = [], choice.first.replace(day=1)
    while month <= choice.last:
        found.append(f"{month:%Y-%m}")
        month = (month + timedelta(days=32)).replace(day=1)
    return found


def _by_size(wanted: Asked, rows: list[tuple[Key, Amounts]], names: Names) -> Chart:
    kind = wanted.keys[0]
    return charts.rows(_title(wanted), [(names.of(kind, key[0]), said[wanted.meter]) for key, said in rows])


PAGES = (
    Page("GET", PATH, OFFICE, get_usage),
    Page("GET", f"{PATH}.csv", OFFICE, get_table),
)
