"""Profiles: presets of a project's own, in `[license.profiles.NAME]` of sealpack.toml, and presets in words.

Source: specs/config.md, "Profiles". A profile begins with a preset and puts values of its own in their place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sealpack.builder import licensing
from sealpack.builder.presets import DAY, PRESETS, Preset
from sealpack.builder.toml_table import Table
from sealpack.format.errors import SealpackError
from sealpack.format.license import (
    BILLING,
    BINDINGS,
    ON_BACK,
    ON_EXCEED,
    ON_STALE,
    RECEIPTS,
    ClockRules,
    LeaseTerms,
    Provisional,
    Rate,
)
from sealpack.format.values import IDENTIFIER, plain

TERMS = ("forever", "first-start", "year", "contract")
WATERMARKS = ("no", "visible", "hidden", "optional")
_DROPS: Mapping[str, dict[str, Any]] = {
    "devices": {"devices": None},
    "limits": {"limits": Rate()},
    "quota": {"quota": ()},
    "hard_percent": {"hard_percent": None},
    "lease": {"lease": LeaseTerms()},
    "provisional": {"provisional": None},
    "clock": {"clock": None},
}


def read(table: Table) -> dict[str, Preset]:
    """`[license.profiles]`: every table in it, by name; CONFIG_INVALID names the key."""
    found = {}
    for name in table.names:
        if name in PRESETS:
            table.fail(name, "is the name of a preset; choose another")
        if not licensing.is_tier(name):
            table.fail(name, f"does not fit the pattern {IDENTIFIER}, or is longer than 64 characters")
        profile = table.sub(name)
        found[name] = _profile(profile)
        profile.close()
    return found


def _profile(table: Table) -> Preset:
    base = table.choice("base", tuple(PRESETS))
    if base is None:
        table.fail("base", f"is missing: one of {', '.join(PRESETS)}")
    made = PRESETS[base]
    for name in table.texts("without"):
        if name not in _DROPS:
            table.fail("without", f"{name!r} is not one of {', '.join(_DROPS)}")
        made = replace(made, **_DROPS[name])
    words: dict[str, Any] = {key: table.texts(key) for key in ("allow", "deny") if key in table}
    simple: dict[str, Any] = {
        "binding": table.choice("binding", BINDINGS),
        "devices": table.integer("devices", lo=1),
        "vm": table.boolean("vm", True) if "vm" in table else None,
        "container": table.boolean("container", True) if "container" in table else None,
        "grace_s": _days(table, "grace_days"),
        "over": table.choice("over", ON_EXCEED),
        "hard_percent": table.integer("hard_percent", lo=100),
        "watermark": table.choice("watermark", WATERMARKS),
        "billing": table.choice("billing", BILLING),
        "receipts": table.choice("receipts", RECEIPTS),
    }
    made = replace(made, **words, **{key: value for key, value in simple.items() if value is not None})
    made = _term(table, made)
    made = replace(made, limits=_limits(table, made.limits), lease=_lease(table, made.lease))
    if "quota" in table:
        made = replace(made, quota=_each(table, "quota", lambda text: licensing.parse_quota(text, made)))
    if "provisional" in table:
        made = replace(made, provisional=_provisional(table.sub("provisional")))
    on_back = table.choice("on_back", ON_BACK)
    return made if on_back is None else replace(made, clock=ClockRules(on_back))


def _days(table: Table, key: str, lo: int = 0) -> int | None:
    days = table.integer(key, lo=lo, hi=36_500)
    return None if days is None else days * DAY


def _term(table: Table, made: Preset) -> Preset:
    term, term_s = table.choice("term", TERMS), _days(table, "term_days", lo=1)
    if term is not None:
        made = replace(made, term=term, term_s=made.term_s if term == "first-start" else None)
    if term_s is not None:
        made = replace(made, term_s=term_s)
    if (made.term == "first-start") != (made.term_s is not None):
        table.fail("term_days", 'stands exactly with term = "first-start"')
    return made


def _limits(table: Table, base: Rate) -> Rate:
    given = {f.name: table.integer(f.name) for f in dataclasses.fields(Rate)}
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def _lease(table: Table, base: LeaseTerms) -> LeaseTerms:
    settle_s, warn_s = _days(table, "settle_days", lo=1), _days(table, "warn_days")
    on_stale = table.choice("on_stale", ON_STALE)
    made = licensing.settled(base, settle_s, on_stale) if settle_s or base.required else base
    if not made.required and (warn_s is not None or on_stale is not None):
        table.fail("warn_days" if on_stale is None else "on_stale", "needs settle_days")
    if warn_s is not None:
        made = replace(made, warn_s=warn_s)
    return replace(made, allowance=_each(table, "allowance", licensing.parse_allowance) or made.allowance)


def _each(table: Table, key: str, parse: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(parse(text) for text in table.texts(key))
    except SealpackError as error:
        table.fail(key, error.message)


def _provisional(table: Table) -> Provisional:
    hours, calls = table.integer("hours", lo=1, hi=876_000), table.integer("calls", lo=1)
    table.close()
    if hours is None or calls is None:
        table.fail("hours" if hours is None else "calls", "is missing")
    return Provisional(hours * 3600, calls)


# --- finding and showing --------------------------------------------------------------------------------


def known(profiles: Mapping[str, Preset]) -> dict[str, Preset]:
    """The presets, then the project's profiles."""
    return {**PRESETS, **profiles}


def find(name: str, among: Mapping[str, Preset]) -> Preset:
    """A preset or profile by name; USAGE lists them."""
    if name not in among:
        raise SealpackError(
            "USAGE",
            f"unknown preset {name!r}; there are {', '.join(among)}",
            remedy="see `sealpack license presets`",
        )
    return among[name]


def to_dict(preset: Preset) -> dict[str, Any]:
    """All values, for programs."""
    values: dict[str, Any] = plain(preset)
    return values


def _rows(preset: Preset) -> list[tuple[str, str]]:
    p, limits = preset, preset.limits
    rates = (limits.qps, limits.burst, limits.inflight)
    quota = ", ".join(f"{q.meter} {q.cap} per {q.window}, {q.on_exceed}" for q in p.quota)
    over = p.over + (f", hard cap {p.hard_percent} %" if p.hard_percent is not None else "")
    ends = {
        "forever": "never",
        "first-start": f"{(p.term_s or 0) // DAY} days from first start",
        "year": "last day given, else a year",
        "contract": "last day given",
    }[p.term]
    lease = p.lease
    return [
        ("allow", ", ".join(p.allow) or "–"),
        ("deny", ", ".join(p.deny) or "–"),
        ("binding", p.binding),
        ("devices", _or_dash(p.devices)),
        ("vm / container", f"{'yes' if p.vm else 'no'} / {'yes' if p.container else 'no'}"),
        ("ends", ends),
        ("grace, days", str(p.grace_s // DAY)),
        ("qps / burst / inflight", " / ".join(map(_or_dash, rates)) if any(rates) else "–"),
        ("processes", _or_dash(limits.processes)),
        ("quota", quota or "–"),
        ("past a quota's cap", over),
        ("settle every, days", _or_dash(lease.max_age_s and lease.max_age_s // DAY)),
        ("warn before, days", _or_dash(lease.warn_s and lease.warn_s // DAY)),
        ("not settled in time", lease.on_stale if lease.required else "–"),
        ("allowance", ", ".join(f"{a.meter} {a.amount}" for a in lease.allowance) or "–"),
        ("before activation", _provisional_words(p.provisional)),
        ("clock set back", p.clock.on_back if p.clock else "continue"),
        ("watermark", p.watermark),
        ("billing", p.billing),
        ("receipts", p.receipts),
    ]


def _or_dash(value: int | None) -> str:
    return "–" if value is None else str(value)


def _provisional_words(terms: Provisional | None) -> str:
    return "–" if terms is None else f"{terms.calls} calls in {terms.s // 3600} hours"


def details(name: str, preset: Preset) -> str:
    """All values of one preset, a line each."""
    return "\n".join((name, *(f"  {key:<24}{value}" for key, value in _rows(preset))))


def table(presets: Mapping[str, Preset]) -> str:
    """What differs most, a preset a line."""
    keys = ("binding", "devices", "ends", "grace, days", "settle every, days", "watermark", "billing")
    lines: list[tuple[str, ...]] = [("preset", *keys)]
    for name, preset in presets.items():
        values = dict(_rows(preset))
        lines.append((name, *(values[key] for key in keys)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ("  ".join(f"{x:<{w}}" for x, w in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(rows)
