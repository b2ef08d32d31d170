"""Every error Sealpack can report: one class, one table.

Source: specs/errors.md (generated into docs/errors.md). A code is a stable string: the same in the
terminal, in JSON, over HTTP and in tests. Its row says the process exit status, the HTTP status, a
title, and what to do next.

    exit 1  could not do the job (I/O, internal)
    exit 2  usage, or that part is not installed
    exit 3  not authentic or not intact
    exit 4  authentic but not permitted
    exit 5  finished, but some input was refused
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """One row of the table: exit status, HTTP status, title, remedy."""

    exit: int
    http: int
    title: str
    remedy: str


class SealpackError(Exception):
    """A named failure.

    `code` is a key of :data:`CODES`; `message` says what and which, in lower case, without the
    code; `remedy` overrides the table's next step; `facts` are machine-readable values for JSON.
    """

    def __init__(self, code: str, message: str, *, remedy: str | None = None, **facts: Any) -> None:
        spec = CODES[code]
        message = printable(message)
        super().__init__(message)
        self.code = code
        self.message = message
        self.spec = spec
        self.remedy = spec.remedy if remedy is None else remedy
        self.facts = facts

    def __str__(self) -> str:
        return f"error[{self.code}]: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, schema sealpack/error/v1."""
        return {
            "schema": "sealpack/error/v1",
            "code": self.code,
            "exit": self.spec.exit,
            "title": self.spec.title,
            "detail": self.message,
            "remedy": self.remedy,
            **({"facts": self.facts} if self.facts else {}),
        }

    def to_problem(self) -> dict[str, Any]:
        """The HTTP body, a problem document of RFC 9457, schema sealpack/problem/v1.

        `retry_after` (seconds) is there where trying again may help, `support` where the license names one.
        """
        wait = self.facts.get("retry_after_s", _RETRY_S.get(self.spec.http))
        support = self.facts.get("support")
        return {
            "type": f"urn:sealpack:error:{self.code}",
            "title": self.spec.title,
            "status": self.spec.http,
            "detail": self.message,
            "code": self.code,
            "remedy": self.remedy,
            "ref": f"docs/errors.md#{self.code.lower()}",
            **({} if wait is None else {"retry_after": wait}),
            **({} if support is None else {"support": support}),
        }


_RETRY_S = {429: 1, 503: 5, 507: 60}  # HTTP status -> seconds after which trying again is worth it


def printable(text: str) -> str:
    """`text` on one line and harmless to a terminal: messages quote hostile input."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _io(http: int, title: str, remedy: str) -> ErrorSpec:
    return ErrorSpec(1, http, title, remedy)


def _use(title: str, remedy: str) -> ErrorSpec:
    return ErrorSpec(2, 400, title, remedy)


def _bad(title: str, remedy: str) -> ErrorSpec:
    return ErrorSpec(3, 400, title, remedy)


def _no(title: str, remedy: str, http: int = 403) -> ErrorSpec:
    return ErrorSpec(4, http, title, remedy)


_NEW_COPY = "get the file again from whoever gave it to you; do not use this copy"
_ASK_VENDOR = "ask the vendor for a new license file"
_ACTIVATE = "run `sealpack activate request --out FILE` and send the file to the vendor"
_INSTALL = "install your license file: `sealpack activate install FILE`; without one, " + _ACTIVATE
_NEW_BUNDLE = "ask the vendor for the newer bundle, then `sealpack install BUNDLE`"
_SETTLE = "run `sealpack sync DIR`, send the files to the vendor, and sync again with the reply"
_CARRY = "nothing was lost: try again later, or carry the files with `sealpack sync DIR`"

CODES: dict[str, ErrorSpec] = {
    # --- could not do the job -----------------------------------------------------------------
    "IO_ERROR": _io(500, "file could not be read or written", "check the path and try again"),
    "FILE_MISSING": _io(404, "file not found", "check the path"),
    "INTERNAL": _io(500, "a fault in sealpack itself", "run again with -v and report what it says"),
    "STORE_READONLY": _io(503, "state cannot be written", "make the state directory writable"),
    "STORE_FULL": _io(507, "disk is full", "free some space; nothing was lost"),
    "STORE_IO": _io(503, "state could not be read or written", "check the disk, then try again"),
    "STORE_CORRUPT": _io(503, "state database is damaged", "restore it from a backup"),
    "STATE_LOCKED": _io(503, "state is in use by another process", "try again in a moment"),
    "STATE_UNSAFE": _io(
        503, "state directory is not safe to use", "give a local folder that you own with --state"
    ),
    "CLOCK_UNREADABLE": _io(503, "the clock cannot be read", "set the clock and try again"),
    "ENGINE_FAILED": _io(500, "the model engine failed", "run `sealpack selftest`"),
    "KEY_TOKEN_FAILED": _io(503, "key token failed", "plug the token in, then try again"),
    "KEY_TOKEN_FAULTY": _io(500, "key token is faulty", "do not use this token; nothing was written"),
    "PUSH_UNREACHABLE": _io(503, "settlement service not reached", _CARRY),
    "PUSH_ANSWER": _io(502, "not a settlement service's answer", "check the address; " + _CARRY),
    # --- usage --------------------------------------------------------------------------------
    "EXTRA_MISSING": _use("part not installed", "install the extra that the message names"),
    "USAGE": _use("not a valid call", "see --help"),
    "OUTPUT_EXISTS": _use("output exists", "choose another name or pass --force"),
    "CONFIG_INVALID": _use("configuration not understood", "correct sealpack.toml"),
    "KEY_UNREADABLE": _use("key file not usable", "check the key file and its passphrase"),
    "KEY_URI": _use("key URI not understood", "see docs/hardware-tokens.md"),
    "KEY_TOKEN_MODULE": _use("PKCS#11 module not usable", "check module-path; see docs/hardware-tokens.md"),
    "KEY_TOKEN_MISSING": _use("key token not found", "plug the token in; check token and serial"),
    "KEY_TOKEN_AMBIGUOUS": _use("several tokens or keys fit", "say more in the key URI"),
    "KEY_TOKEN_PIN": _use("PIN missing or refused", "check the PIN: tokens lock after a few wrong ones"),
    "KEY_TOKEN_LOCKED": _use("PIN is locked", "unlock it with the security officer's PIN (PUK)"),
    "KEY_TOKEN_OBJECT": _use("key not found on the token", "check object and id"),
    "KEY_TOKEN_KIND": _use("key on the token not usable", "use an ECDSA P-256 key that may sign"),
    "INPUT_INVALID": _use("input not understood", "see `sealpack run --help` and the model card"),
    "MODEL_MISSING": _use("model not found", "check the path of the model file"),
    "MODEL_UNKNOWN": _use("not a model", "give an ONNX or GGUF file"),
    "POLICY_INVALID": _use("policy file not valid", "correct the place named; see specs/policy.md"),
    "PLAN_INVALID": _use("price plan not valid", "correct the plan at the place named"),
    "USAGE_TABLE_INVALID": _use("usage table not valid", "correct the row named"),
    "REGISTRY_INVALID": _use("registry file not valid", "correct the record named"),
    "INVOICE_UNKNOWN": _use("no such invoice", "list them with `sealpack settle invoices`"),
    "LOG_UNKNOWN": _use("no such device log", "see `sealpack settle reconcile`"),
    "EXPORT_REFUSED": _use("cannot be expressed in that form", "use the document's JSON, CSV or HTML"),
    "AMOUNT_INVALID": _use("amount not possible", "give an amount within the limit named"),
    "PAYMENT_KNOWN": _use("booked before", "see `sealpack settle invoices`; give another --ref if it is new"),
    "APPROVAL_MISSING": _use("nobody approved this draft", "look at it and run `sealpack settle approve`"),
    "CHANGED_MEANWHILE": _use("it is not what was looked at", "look at it again, then decide"),
    "CASE_INVALID": _use("case cannot be decided so", "see `sealpack settle cases`"),
    "CPU_UNSUPPORTED": _use("processor too old", "use a machine with AVX2"),
    # --- not authentic or not intact ------------------------------------------------------------
    "JSON_INVALID": _bad("not canonical JSON", _NEW_COPY),
    "JSON_LIMIT": _bad("JSON too large or too deep", _NEW_COPY),
    "DSSE_INVALID": _bad("envelope malformed", _NEW_COPY),
    "DOC_TYPE": _bad("wrong kind of document", "give the kind of file the command asks for"),
    "DOC_SCHEMA": _bad("document does not fit its schema", _NEW_COPY),
    "DOC_CRIT": _bad("document needs a newer version", "update sealpack"),
    "KEY_MALFORMED": _bad("public key malformed", _NEW_COPY),
    "CONTAINER_TRUNCATED": _bad("bundle is cut short", _NEW_COPY),
    "CONTAINER_TAIL": _bad("bundle end records are not canonical", _NEW_COPY),
    "CONTAINER_DIRECTORY": _bad("bundle directory is not canonical", _NEW_COPY),
    "CONTAINER_HEADER": _bad("bundle entry header is not canonical", _NEW_COPY),
    "CONTAINER_NAME": _bad("bundle has a forbidden entry name", _NEW_COPY),
    "CONTAINER_DUPLICATE": _bad("bundle has a name twice", _NEW_COPY),
    "CONTAINER_ORDER": _bad("bundle entries are out of order", _NEW_COPY),
    "CONTAINER_LIMIT": _bad("bundle exceeds a limit", _NEW_COPY),
    "CONTAINER_META": _bad("bundle has a stray or bad META entry", _NEW_COPY),
    "CONTAINER_CRC": _bad("bundle entry checksum differs", _NEW_COPY),
    "SIG_MISSING": _bad("bundle is not signed", "ask the creator for the signed bundle"),
    "SIG_MALFORMED": _bad("signature malformed", _NEW_COPY),
    "SIG_INVALID": _bad("signature does not verify", _NEW_COPY),
    "SIG_KEY_UNKNOWN": _bad("signed by a key that is not trusted", "check the trust file, or ask who signed"),
    "SIG_KEY_ROLE": _bad("key is not allowed to sign this", "ask who signed and why"),
    "SIG_NAMESPACE": _bad("key may not sign for this name", "ask who signed and why"),
    "SIG_STATEMENT": _bad("signed statement is not a Sealpack statement", _NEW_COPY),
    "SIG_RESOURCES": _bad("signed file list differs from the bundle", _NEW_COPY),
    "SIG_SCHEME": _bad("a required signature scheme is missing", _NEW_COPY),
    "SIG_SUBJECT": _bad("signed subject digest is wrong", _NEW_COPY),
    "MANIFEST_INVALID": _bad("manifest does not fit its schema", _NEW_COPY),
    "MANIFEST_MISMATCH": _bad("manifest and bundle disagree", _NEW_COPY),
    "DIGEST_MISMATCH": _bad("file content was changed", _NEW_COPY),
    "CHUNK_MISMATCH": _bad("chunk table and content disagree", _NEW_COPY),
    "SBOM_INVALID": _bad("SBOM not valid", "ask the creator for a corrected bundle"),
    "QR_FRAME": _bad("not a sealpack code, or damaged", "scan this code again; see docs/activation.md"),
    "QR_MIXED": _bad("codes of different documents", "scan the codes of one document only"),
    "QR_MISSING": _bad("not all codes were scanned", "scan the missing codes too; the others stay good"),
    "QR_DIGEST": _bad("codes do not fit together", "scan all codes again, or carry the file"),
    "QR_LIMIT": _bad("too much for codes", "carry the file instead"),
    "QR_PICTURE": _bad("no code found in the picture", "take the picture again, straight, sharp and close"),
    "BUILD_DIFFERS": _bad("bundle is not what these inputs give", "compare inputs, versions, signing time"),
    "OCI_INVALID": _bad("not an image layout made from a bundle", "export the bundle again"),
    "PARTS_INVALID": _bad("not a list of parts", "copy the list again from the medium"),
    "EVIDENCE_MISMATCH": _bad("evidence is about another model", "evaluate this model: `sealpack evaluate`"),
    "TERMS_MISMATCH": _bad("license terms and manifest disagree", _NEW_COPY),
    "MODEL_TRUNCATED": _bad("model file is cut short", "get the model file again"),
    "MODEL_UNSAFE": _bad("model file is malformed or unsafe", "do not use this model file"),
    "TRUST_INVALID": _bad("trust file not valid", "get the trust file again"),
    "TRUST_THRESHOLD": _bad("not enough root signatures", "get the trust file again"),
    "TRUST_ROLLBACK": _bad("older than what is already trusted", "use the newer file"),
    "AUDIT_BROKEN": _bad("books were changed outside settlement", "restore them from a backup and compare"),
    "SUMS_WRONG": _bad("amounts do not add up", "ask the seller for the document again"),
    "BACKUP_INVALID": _bad("backup not valid", "use another copy or an earlier backup"),
    "PACK_INVALID": _bad("dispute pack not valid", "ask for it again; `sealpack verify` says what failed"),
    "TRUST_CONFLICT": _bad("same version, other content", "ask the vendor which one is right"),
    "TRUST_UNPINNED": _no("no trust root pinned", "run `sealpack trust pin trust.json`"),
    "VAULT_INVALID": _bad("vault cannot be opened", "check the vault file and its passphrase"),
    "RECORD_INVALID": _bad("build record cannot be opened", "check the record and its passphrase"),
    "WATERMARK_UNSUITABLE": _use("model cannot carry a mark", "see specs/watermark.md"),
    "LIC_UNREADABLE": _bad("license file cannot be read", _ASK_VENDOR),
    "LIC_SIG_INVALID": _bad("license signature does not verify", _ASK_VENDOR),
    "LIC_KEY_UNTRUSTED": _bad("license signed by an untrusted key", _ASK_VENDOR),
    "LIC_SCHEMA": _bad("license does not fit its schema", _ASK_VENDOR),
    "BUNDLE_INVALID": _bad("installed bundle fails its check", "install the bundle again"),
    "CONFIRMATION_INVALID": _bad(
        "confirmation code fits no device", "ask for the code again: `sealpack activate status` shows it"
    ),
    "KEY_UNWRAP": _bad("bundle key cannot be opened", _ASK_VENDOR),
    "RECEIPT_INVALID": _bad("not a canonical receipt record", "keep the file; ask support"),
    "RECEIPT_ORDER": _bad("receipts are out of order", "keep the file; ask support"),
    "RECEIPT_ROUTE": _bad("receipts contradict their route table", "keep the file; ask support"),
    "RECEIPT_TALLY": _bad("registers differ from the receipts", "keep the file; ask support"),
    "RECEIPT_TREE": _bad("receipts do not fit their signed tree", "keep the file; ask support"),
    "CHECKPOINT_INVALID": _bad("checkpoint signature does not verify", "keep the file; ask support"),
    "USAGE_HEADER": _bad("usage file header not valid", "export the file again"),
    "USAGE_KEY": _bad("usage file is of another device", "check which machine the file came from"),
    "USAGE_LIMIT": _bad("usage file exceeds a limit", "export the file again"),
    "USAGE_MISMATCH": _bad("usage file says other totals than it holds", "export the file again"),
    "USAGE_TORN": _bad("usage file is cut short", "export the file again; whole blocks count"),
    "USAGE_TRAILING": _bad("usage file has bytes after its end", "export the file again"),
    # --- authentic but not permitted ------------------------------------------------------------
    "LIC_MISSING": _no("no license", _INSTALL),
    "LIC_AMBIGUOUS": _no("two licenses fit", "see `sealpack status`, then choose one with --license ID"),
    "LIC_SUPERSEDED": _no(
        "license was replaced", "nothing to do: a newer one is here, see `sealpack status`"
    ),
    "LIC_CONFLICT": _no("two licenses with one number", _ASK_VENDOR, 409),
    "BUNDLE_MISMATCH": _no("license is for another bundle", _ASK_VENDOR),
    "BUNDLE_REVOKED": _no("bundle was withdrawn", _NEW_BUNDLE),
    "POLICY_DENIED": _no("your policy does not let this in", "ask the creator, or change the policy"),
    "BUNDLE_FLOOR": _no("bundle is older than allowed", _NEW_BUNDLE),
    "NOT_INSTALLED": _no("bundle is not installed", "run `sealpack install BUNDLE`", 404),
    "TIER_UNPROVEN": _no("evidence does not prove the quality tier", "meet the gates named, or claim less"),
    "ENV_MISMATCH": _no("license is for another environment", _ASK_VENDOR),
    "TERMS_NOT_ACCEPTED": _no(
        "terms not accepted", "run `sealpack terms show BUNDLE`, then `sealpack terms accept BUNDLE`"
    ),
    "LIC_NOT_YET_VALID": _no(
        "license is not valid yet", "wait until then; if it is later already, set the clock right"
    ),
    "LIC_EXPIRED": _no(
        "license has ended",
        "ask the vendor for a new license file, then `sealpack activate install FILE`",
        402,
    ),
    "LEASE_STALE": _no("usage has not been settled for too long", _SETTLE, 402),
    "LEASE_MISMATCH": _no(
        "lease is for another device", "give this machine's own file: see `sealpack status` for its name"
    ),
    "UPDATE_NOT_COVERED": _no(
        "update not covered", "use the version before, or renew the license for updates", 402
    ),
    "LIC_REVOKED": _no("license was revoked", _ASK_VENDOR),
    "REVLIST_OLD": _no(
        "revocation list too old", "take in all files the vendor sent: `sealpack activate install FILE`"
    ),
    "CLOCK_BACK": _no("the clock was set back", "set the machine's clock right", 409),
    "NOT_ACTIVATED": _no("this machine is not activated", _ACTIVATE),
    "DEVICE_MISMATCH": _no("license is for another device", _ACTIVATE),
    "DEVICE_KEY_MISSING": _no("device key is missing", _ACTIVATE),
    "DEVICE_LIMIT": _no("no device seat left", "deactivate one, or ask for more seats"),
    "HW_CHANGED": _no("hardware changed", "ask the vendor for a repair file"),
    "VM_DENIED": _no("virtual machines not allowed", "run on a physical machine"),
    "CONTAINER_DENIED": _no("containers not allowed", "run outside a container"),
    "DEVICE_CLOSED": _no("this device was deactivated", _ACTIVATE),
    "DEVICE_REVOKED": _no(
        "this device was revoked", "call the vendor: it was withdrawn from use, and no file ends that"
    ),
    "KEY_REVOKED": _no(
        "signing key was revoked", "get a newer file from the vendor; `sealpack status` says what is here"
    ),
    "ACTIVATION_NONCE": _no(
        "activation answers another request", "use the reply to this machine's newest request"
    ),
    "SUBLICENSE_INVALID": _no("sub-license not valid", _ASK_VENDOR),
    "STATE_MISSING": _no("state is missing", "restore it from a backup", 409),
    "STATE_TAMPERED": _no("state was changed from outside", "ask support", 409),
    "STATE_ROLLED_BACK": _no(
        "state is older than the last mark",
        "restore the newest backup, or ask the vendor for an epoch token and take it with"
        " `sealpack activate install FILE`",
        409,
    ),
    "STATE_NEWER": _no("state was written by a newer version", "update sealpack", 409),
    "LOG_FULL": _no("log knows too many releases", "ask the vendor for a new activation", 409),
    "EPOCH_MISMATCH": _no("lease is for another log", _SETTLE, 409),
    "ACK_FORK": _no("acknowledgement does not fit this log", "keep both files; ask support", 409),
    "CLONE_SUSPECT": _no("a second copy of this device was seen", "ask support", 409),
    "UNSETTLED_LIMIT": _no("too much unsettled usage", _SETTLE, 402),
    "QUOTA_EXCEEDED": _no(
        "quota used up", "see `sealpack status` for when it renews, or ask the vendor for more", 402
    ),
    "HARD_CAP": _no("hard cap reached", "ask the vendor for more", 402),
    "RATE_LIMITED": _no("too many calls per second", "slow down and try again", 429),
    "CONCURRENCY_LIMIT": _no("too many calls at once", "try again in a moment", 429),
    "PROCESS_LIMIT": _no("too many processes", "stop one of them", 429),
    "REQUEST_TOO_LARGE": _no("request too large", "send a smaller request", 413),
    "TOKEN_INVALID": _no("token not accepted", "get a token: `sealpack settle token new`", 401),
    "LOGIN_INVALID": _no("login not accepted", "try again, or ask an admin for a new password", 401),
    "FORM_INVALID": _no("form not accepted", "open the page again and send the form from there", 400),
    "ROLE_DENIED": _no("not allowed with this token", "use a token of a role that may do this"),
    "NOT_FOUND": _no("nothing is there", "see /openapi.json for what there is", 404),
    "UPLOAD_INVALID": _no("not a usage file", "send a usage file (.usage.gz), or a zip of them", 415),
    "UPLOAD_SLOW": _no("upload too slow", "send it again over a better line, in smaller files", 408),
    "PUSH_REFUSED": _no("settlement service refused", "ask the vendor; " + _CARRY),
    "FEATURE_NOT_LICENSED": _no("feature not licensed", _ASK_VENDOR),
}
