"""`sealpack verify`: is this bundle authentic and intact?"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealpack.format import billing, parts
from sealpack.format.errors import SealpackError, printable
from sealpack.format.files import read_bounded
from sealpack.format.keys import ECDSA, PrivateKey, PublicKey
from sealpack.format.limits import LIMITS
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.verifier.report import Report

FORMATS = ("text", "json", "sarif", "html", "svr")
MAX_KEY_FILE = 64 * 1024
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,2000}")
_PACK_AT, _PACK_NAME = 30, b"evidence.json"  # of a zip file's first entry, the name
_MARK = re.compile(r"^(PASS|FAIL|  ok|  FAIL|  warning)\b", re.MULTILINE)
_COLOURS = {"PASS": "green", "ok": "green", "FAIL": "red", "warning": "yellow"}


@click.command(short_help="Check that a bundle is authentic and intact.")
@click.argument("bundle", type=click.Path(dir_okay=False))
@click.option("--trust", "trust_file", type=click.Path(dir_okay=False), help="Trust file (trust.json).")
@click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False),
    help="The creator's public key (PEM), instead of a trust file.",
)
@click.option(
    "--mldsa-key",
    "mldsa_file",
    type=click.Path(dir_okay=False),
    help="With --key: the creator's public ML-DSA-65 key, required to have signed too.",
)
@click.option("--leaves", is_flag=True, help="Hash payload by chunk leaves only, on all cores.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Hash only N chunks of each payload file, chosen at random: quick, and not complete.",
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(dir_okay=False),
    help="Policy file (TOML): what a good bundle must be to be let in.",
)
@support.formats(*FORMATS)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the report to this file.")
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
@click.option(
    "--sign-key",
    type=click.Path(dir_okay=False),
    help="For svr: your private ECDSA P-256 key (PEM), which signs the result.",
)
@support.passphrase_option
@click.option("--verifier-id", metavar="URI", help="For svr: who verified, instead of this software.")
def verify(
    bundle: str,
    trust_file: str | None,
    key_file: str | None,
    mldsa_file: str | None,
    leaves: bool,
    sample: int | None,
    policy_file: str | None,
    fmt: str,
    output: str | None,
    force: bool,
    sign_key: str | None,
    passphrase_file: str | None,
    verifier_id: str | None,
) -> int:
    """Check that BUNDLE is authentic and intact, and report every check.

    BUNDLE may also be a signed invoice or statement, with --trust: then it is told who signed it, and that
    its amounts add up; or a dispute pack.

    The report is text, one JSON object, SARIF 2.1.0, one HTML page to be filed, or (svr) a signed in-toto
    Simple Verification Result, which only a bundle that passed gets.

    Exit status: 0 pass, 3 not authentic or not intact, 4 withdrawn, revoked or against the policy.
    """
    from sealpack.verifier.checks import verify_bundle

    if _is_evidence_pack(bundle):
        return _verify_pack(bundle, trust_file, fmt)
    if _is_signed_document(bundle):
        return _verify_signed(bundle, trust_file, fmt)
    if (trust_file is None) == (key_file is None):
        raise SealpackError("USAGE", "give one of --trust FILE or --key FILE")
    if mldsa_file and key_file is None:
        raise SealpackError("USAGE", "--mldsa-key belongs to --key; a trust file names both keys")
    signer = _signer(fmt, sign_key, passphrase_file, verifier_id)
    _check_output(output, force, *_files_of(bundle), trust_file, key_file, mldsa_file, policy_file, sign_key)
    trust = support.load_trust(trust_file) if trust_file else None
    key, mldsa_key = _public(key_file), _public(mldsa_file)
    judge = _policy(policy_file) if policy_file else None
    size = support.existing(bundle).stat().st_size
    with support.progress_bar("hashing", 0 if sample else size) as bar:
        report = verify_bundle(
            Path(bundle),
            trust,
            key=key,
            mldsa_key=mldsa_key,
            leaves_only=leaves,
            sample=sample,
            progress=bar.update,
        )
    report.verified_at = support.now()
    if judge is not None:
        judge(report, report.verified_at)
    if report.ok or fmt != "svr":
        shown = _render(report, fmt, signer, verifier_id, terminal=output is None)
        support.write_result(shown, output, force)
    if not report.ok:
        support.note(_refusal(report))
    return report.exit_status


def _is_evidence_pack(path: str) -> bool:
    """A dispute pack is a zip file that begins with its manifest (specs/evidence-pack.md)."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        head = file.read(_PACK_AT + len(_PACK_NAME))
    return head.startswith(b"PK\x03\x04") and head[_PACK_AT:] == _PACK_NAME


def _verify_pack(path: str, trust_file: str | None, fmt: str) -> int:
    """Hand a dispute pack to the part that settles: only that can rate usage again."""
    if trust_file is None or fmt not in ("text", "json"):
        raise SealpackError("USAGE", "a dispute pack is verified with --trust FILE, as text or json")
    context = click.get_current_context()
    root = context.find_root().command
    settle = root.get_command(context, "settle") if isinstance(root, click.Group) else None
    if not isinstance(settle, click.Group):
        raise SealpackError(
            "EXTRA_MISSING", "a dispute pack needs settlement", remedy="pip install 'sealpack[settlement]'"
        )
    check = settle.get_command(context, "check-evidence")
    assert check is not None
    status: int = context.invoke(check, file=path, trust_file=trust_file, fmt=fmt)
    return status


def _is_signed_document(path: str) -> bool:
    """A signed invoice or statement (specs/invoice.md section 7) is JSON that says so."""
    if not Path(path).is_file() or Path(path).stat().st_size > 2 * LIMITS.billing_bytes:
        return False
    with Path(path).open("rb") as file:
        if file.read(1) != b"{":
            return False
    return billing.is_signed(read_bounded(path, 2 * LIMITS.billing_bytes))


def _verify_signed(path: str, trust_file: str | None, fmt: str) -> int:
    """Who signed an invoice or statement, and whether it adds up."""
    from sealpack.verifier import signed_document

    if trust_file is None or fmt not in ("text", "json"):
        raise SealpackError("USAGE", "a signed document is verified with --trust FILE, as text or json")
    data = read_bounded(path, 2 * LIMITS.billing_bytes)
    report = signed_document.verify(data, support.load_trust(trust_file))
    support.emit(report.to_dict(), "\n".join(map(printable, report.lines())), fmt)
    return report.exit_status


def _refusal(report: Report) -> str:
    """The first failure in one line, as every error reads; the report has the others."""
    first, *others = report.failures
    what = f"{first.id}: {first.detail}" if first.code == "POLICY_DENIED" else first.detail
    more = f" (and {len(others)} more)" if others else ""
    return f"sealpack: error[{first.code}]: {printable(report.path)}: {what}{more}; next: {first.remedy}"


def _policy(policy_file: str) -> Callable[[Report, int], None]:
    """The rules of a policy file, read before anything is hashed; without one its modules are not loaded."""
    from sealpack.verifier import policy

    rules = policy.load(policy_file)
    return lambda report, moment: policy.apply(report, rules, moment)


def _signer(
    fmt: str, sign_key: str | None, passphrase_file: str | None, verifier_id: str | None
) -> PrivateKey | None:
    """The key that signs the result; USAGE when the options and the format do not go together."""
    if fmt != "svr":
        if sign_key or verifier_id:
            raise SealpackError("USAGE", "--sign-key and --verifier-id belong to --format svr")
        return None
    if sign_key is None:
        raise SealpackError("USAGE", "--format svr is signed: give --sign-key FILE")
    if verifier_id is not None and not _URI.fullmatch(verifier_id):
        raise SealpackError("USAGE", "--verifier-id is not a URI")
    key = PrivateKey.load(sign_key, _passphrase(sign_key, passphrase_file))
    if key.scheme != ECDSA:
        raise SealpackError("KEY_UNREADABLE", f"{sign_key} is an {key.scheme} key, not {ECDSA}")
    return key


def _passphrase(sign_key: str, passphrase_file: str | None) -> bytes | None:
    """The passphrase of an encrypted key, from its file or asked for on a terminal."""
    encrypted = b"BEGIN ENCRYPTED" in read_bounded(sign_key, MAX_KEY_FILE)
    return support.passphrase(passphrase_file, prompt="Key passphrase") if encrypted else None


def _files_of(bundle: str) -> list[str]:
    """The bundle's file, and where it is a list of parts, theirs."""
    if not parts.is_list(bundle):
        return [bundle]
    return [bundle, *(str(path) for path, _ in parts.PartList.load(support.existing(bundle)).parts)]


def _check_output(output: str | None, force: bool, *inputs: str | None) -> None:
    """OUTPUT_EXISTS; USAGE when the report would replace what it is about, even with --force."""
    support.refuse_existing(output, force)
    if output is not None and Path(output).exists():
        for given in inputs:
            if given is not None and Path(given).exists() and Path(output).samefile(given):
                raise SealpackError("USAGE", f"{output} is an input of this verification")


def _render(
    report: Report, fmt: str, signer: PrivateKey | None, verifier_id: str | None, *, terminal: bool
) -> str:
    """The report in one of :data:`FORMATS`; only the form that is asked for is loaded."""
    if fmt == "text":
        from sealpack.verifier.render import text

        shown = text.render(report)
        return _coloured(shown) if terminal else shown
    if fmt == "json":
        return support.json_text(report.to_dict())
    if fmt == "sarif":
        from sealpack.verifier.render import sarif

        return sarif.render(report)
    if fmt == "html":
        from sealpack.verifier.render import html

        return html.render(report)
    from sealpack.verifier.render import svr

    assert signer is not None  # `_signer` refused everything else
    return svr.render(report, signer, verifier_id or svr.VERIFIER_ID)


def _coloured(text: str) -> str:
    """Colour for the marks that begin a line; click takes it away again where it is not wanted."""
    return _MARK.sub(lambda found: click.style(found[0], fg=_COLOURS[found[0].strip()], bold=True), text)


def _public(path: str | None) -> PublicKey | None:
    """The key in a public key file; KEY_MALFORMED names the file."""
    if path is None:
        return None
    try:
        return PublicKey.from_pem(read_bounded(path, MAX_KEY_FILE).decode("ascii", "replace"))
    except SealpackError as error:
        raise SealpackError(
            error.code,
            f"{path}: {error.message}",
            remedy="give a public key file (NAME.pub.pem), or a trust file with --trust",
        ) from None
