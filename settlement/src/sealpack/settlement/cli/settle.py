"""`sealpack settle`: finance's verbs, each in its own module, loaded when called."""

from __future__ import annotations

from importlib import import_module

import click

_VERBS = {
    "import": "import_:import_",
    "ingest": "ingest:ingest",
    "reading": "reading:reading",
    "sync": "sync:sync",
    "reconcile": "reconcile:reconcile",
    "quote": "quote:quote",
    "approve": "approve:approve",
    "invoice": "invoice:invoice",
    "correct": "correct:correct",
    "credit": "credit:credit",
    "invoices": "invoices:invoices",
    "payment": "payment:payment",
    "apply": "payment:apply",
    "refund": "payment:refund",
    "write-off": "payment:write_off",
    "aging": "aging:aging",
    "unbilled": "unbilled:unbilled",
    "held": "unbilled:held",
    "estimates": "estimates:estimates",
    "statement": "statement:statement",
    "payouts": "payouts:payouts",
    "ledger": "ledger:ledger",
    "audit": "audit:audit",
    "backup": "backup:backup",
    "restore": "backup:restore",
    "store": "store:store",
    "work": "work:work",
    "queue": "work:queue",
    "cases": "cases:cases",
    "case": "cases:case",
    "serve": "serve:serve",
    "token": "token:token",
    "user": "user:user",
    "export": "export:export",
    "evidence": "evidence:evidence",
    "check-evidence": "evidence:check_evidence",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, _, name = _VERBS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"sealpack.settlement.cli.{module}"), name)
        return command


@click.group(cls=_Lazy, short_help="Ingest usage, quote, invoice, keep the books.")
@click.option(
    "--db", "database", type=click.Path(dir_okay=False), default="settlement.db", show_default=True,
    help="The settlement database: a file, or postgresql://USER@HOST/NAME.",
)  # fmt: skip
@click.pass_context
def settle(ctx: click.Context, database: str) -> None:
    """Take usage home: ingest, quote, invoice, payments, books."""
    ctx.meta["sealpack.settlement.db"] = database
