"""`sealpack settle approve`: say that drafts may be issued as they are."""

from __future__ import annotations

import json

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="Approve the drafts of a period.")
@click.option("--period", required=True, metavar="YYYY-MM", help="The month.")
@click.option("--license", "license_id", help="Only this license.")
@click.option("--customer", help="Only this customer (id).")
@click.option("--all", "every", is_flag=True, help="Every license.")
@click.option("--draft", "expect", metavar="SHA256", help="With --license: only if the draft is this one.")
@click.option("--early", is_flag=True, help="Also while usage of the period may still come.")
@click.option("--withdraw", metavar="REASON", help="With --license: take the approval back.")
@common.by_option
@support.format_option
def approve(
    period: str, license_id: str | None, customer: str | None, every: bool, expect: str | None, early: bool,
    withdraw: str | None, by: str | None, fmt: str,
) -> int:  # fmt: skip
    """Approve what would be invoiced for a month now, so that `settle invoice --approved` issues it.

    An approval is of one very draft: when usage or a record changes what it says, it lapses. Exit status 5
    when something could not be approved.
    """
    if sum((license_id is not None, customer is not None, every)) != 1:
        raise SealpackError("USAGE", "give --license, --customer or --all")
    if (expect or withdraw) and not license_id:
        raise SealpackError("USAGE", "--draft and --withdraw go with --license")
    month, actor = common.month_of(period), common.actor(by)
    with common.open_database() as database:
        from sealpack.settlement import approvals, drafts

        if withdraw and license_id:
            approvals.withdraw(database, license_id, month, withdraw, actor=actor)
            support.emit(_result([], {}), f"{license_id}  not approved any more", fmt)
            return 0
        skipped: dict[str, str] = {}
        made = []
        if license_id:
            made.append(drafts.approve(database, license_id, month, expect=expect, early=early, actor=actor))
        else:
            made, skipped = drafts.approve_all(database, month, customer=customer, early=early, actor=actor)
    lines = [f"{one.license_id}  approved  {_total(one.draft)}" for one in made]
    lines += [f"skipped  {name}: {reason}" for name, reason in skipped.items()]
    rows = [
        {"license": one.license_id, "period": f"{one.period:%Y-%m}", "draft": one.digest,
         "approved_by": one.who, "approved_at": one.at}
        for one in made
    ]  # fmt: skip
    support.emit(_result(rows, skipped), "\n".join(lines) or "nothing to approve", fmt)
    return 5 if skipped else 0


def _result(rows: list[dict[str, object]], skipped: dict[str, str]) -> dict[str, object]:
    return {
        "schema": "sealpack/settle-approve/v1", "approved": rows,
        "skipped": [{"license": name, "reason": reason} for name, reason in skipped.items()],
    }  # fmt: skip


def _total(draft: bytes) -> str:
    said = json.loads(draft)
    return f"{said['total']} {said['currency']}"
