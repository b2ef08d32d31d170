"""The main job on two real models, told step by step through the verbs a user would type.

Every step is the `sealpack` command itself in a process of its own; nothing here calls another part. A
step that does not end as told ends the demo with that command's own error.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from sealpack.builder.demo import models
from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded

QUESTION = "The sick person is running a temperature."
TEXTS = ("A patient has a high fever.", "The invoice is due on Friday.")
PROMPTS = ("THE SOFTWARE IS PROVIDED", "This program is free software")
ALLOWANCE = 6  # calls before the demo's license wants to see a settlement
CUSTOMER = "Hospital North"
NOTES = {
    "minilm": "142 pairs of sentences of one meaning, written for this demo by the creator",
    "tinylm": "windows of the Apache-2.0 text, on which the model was trained: shows how well it recites, "
    "nothing else; on CC0-1.0, held out of training, it needs 11 bits a token, more than guessing (10)",
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the demo works: who has which folder."""

    root: Path
    models: Path = field(init=False)
    creator: Path = field(init=False)
    stick: Path = field(init=False)
    state: Path = field(init=False)
    finance: Path = field(init=False)

    def __post_init__(self) -> None:
        for name in ("models", "creator", "stick", "state", "finance"):
            object.__setattr__(self, name, self.root / name)

    @property
    def trust(self) -> Path:
        """The vendor's trust file."""
        return self.creator / "trust" / "trust.json"

    @property
    def database(self) -> Path:
        """Settlement's database."""
        return self.finance / "settlement.db"

    def bundle(self, name: str) -> Path:
        """A built bundle."""
        return self.creator / "bundles" / f"{name}-1.0.0.sealpack"


class Teller:
    """Says what happens, and runs commands as a user would."""

    def __init__(self, places: Places, say: Say) -> None:
        self.places, self.say = places, say
        self.chapter = 0

    def title(self, text: str) -> None:
        """Begin a chapter."""
        self.chapter += 1
        self.say(f"\n{self.chapter}. {text}")

    def run(
        self, *arguments: str | Path, expect: int = 0, quiet: bool = False, cwd: Path | None = None
    ) -> str:
        """Run a verb, show it and what it prints, and return its standard output.

        Any other exit status than `expect` ends the demo: INTERNAL, with the command's own words.
        """
        words = [str(a) for a in arguments]
        self.say("   $ sealpack " + " ".join(self._shown(w) for w in words))
        done = subprocess.run(
            [sys.executable, "-m", "sealpack.verifier", *words],
            cwd=cwd or self.places.root, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            env=os.environ | {"SEALPACK_STATE": str(self.places.state), "NO_COLOR": "1"},
        )  # fmt: skip
        if done.returncode != expect:
            problem = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise SealpackError(
                "INTERNAL",
                f"demo step `{words[0]}` ended with {done.returncode}, not {expect}: "
                + (problem[-1] if problem else "no message"),
            )
        if not quiet:
            self._indent(done.stdout + done.stderr)
        return done.stdout

    def data(self, *arguments: str | Path, cwd: Path | None = None) -> dict[str, Any]:
        """Run a verb for its JSON."""
        value: dict[str, Any] = json.loads(self.run(*arguments, "--format", "json", quiet=True, cwd=cwd))
        return value

    def _shown(self, word: str) -> str:
        short = word.replace(f"{self.places.root}/", "")
        return f"'{short}'" if " " in short else short

    def _indent(self, text: str) -> None:
        for line in text.strip().splitlines():
            self.say("     " + line.replace(f"{self.places.root}/", ""))


def tell(places: Places, say: Say) -> None:
    """The whole story; leaves everything under `places.root`."""
    started = time.monotonic()
    teller = Teller(places, say)
    for folder in (places.models, places.stick, places.finance):
        folder.mkdir(parents=True)
    _build(teller)
    _verify(teller)
    _activate(teller)
    _use(teller)
    _settle(teller)
    _again(teller)
    _invoice(teller)
    say(f"\nDone in {time.monotonic() - started:.0f} seconds.")


def _build(t: Teller) -> None:
    p = t.places
    t.title("The creator makes keys and trust, and builds two bundles")
    models.make_minilm_onnx(p.models / "minilm.onnx")
    models.make_tinylm(p.models / "tinylm.gguf")
    t.run("init", p.creator, "--publisher", "sealpack-demo", "--name", "Sealpack Demo")
    with resources.as_file(resources.files("sealpack.builder.demo") / "data" / "project") as source:
        for path in sorted(source.iterdir()):
            target = p.creator / ("plans" if path.name == "plan.yaml" else ".")
            shutil.copyfile(path, target / path.name)
    apache = resources.files("sealpack.builder.demo") / "data" / "LICENSE.txt"
    (p.creator / "licenses" / "LICENSE.txt").write_bytes(apache.read_bytes())
    models.copy_minilm_vocab(p.creator / "vocab.txt")
    (p.creator / "bundles").mkdir(exist_ok=True)
    for name, model in (("minilm", "minilm.onnx"), ("tinylm", "tinylm.gguf")):
        _evaluate(t, name, p.models / model)
        t.run("build", p.models / model, "--config", p.creator / f"{name}.toml", "--out", p.bundle(name))


def _evaluate(t: Teller, name: str, model: Path) -> None:
    """Measure a model before it is built: its evidence decides the tier that the build may stamp."""
    c = t.places.creator
    t.run("evaluate", model, "--config", c / f"{name}.toml", "--data", c / f"{name}-eval.jsonl",
          "--key", c / "keys" / "bundle.pem", "--data-license", "Apache-2.0", "--notes", NOTES[name],
          "--threads", "1",
          "--out", c / "evidence" / f"{name}.json")  # fmt: skip


def _verify(t: Teller) -> None:
    p = t.places
    t.title("The security team checks them")
    t.run("verify", p.bundle("minilm"), "--trust", p.trust)
    t.run("verify", p.bundle("tinylm"), "--trust", p.trust, quiet=True)


def _activate(t: Teller) -> None:
    p = t.places
    t.title("The customer's machine, never online, is activated through two files")
    t.run("trust", "pin", p.trust, "--yes")
    t.run("install", p.bundle("minilm"))
    t.run("install", p.bundle("tinylm"))
    request, reply = p.stick / "ward-7.request", p.stick / "hospital-north.license"
    t.run("activate", "request", "--out", request, "--label", "ward-7")
    t.say("   (the request is carried to the creator, who answers with a license file)")
    t.run(
        "license", "issue", "--project", p.creator, "--preset", "commercial", "--customer", CUSTOMER,
        "--customer-id", "hospital-north", "--license-id", "hospital-north-1", "--until", _a_year_on(),
        "--bundle", p.bundle("minilm"), "--bundle", p.bundle("tinylm"), "--request", request,
        "--devices", "1", "--binding", "key", "--quota", "calls=100000/month,bill",
        "--allowance", f"calls={ALLOWANCE}", "--plan", "demo-edge/1", "--support", "support@demo.invalid",
        "--out", reply, cwd=p.creator,
    )  # fmt: skip
    t.run("activate", "install", reply)
    t.run("terms", "accept", "sealpack-demo/minilm", quiet=True)
    t.run("terms", "accept", "sealpack-demo/tinylm", quiet=True)


def _a_year_on() -> str:
    now = time.gmtime()
    return f"{now.tm_year + 1}-{now.tm_mon:02}-{min(now.tm_mday, 28):02}"


def _use(t: Teller) -> None:
    t.title("Real inferences, each reserved, metered and receipted")
    _compare(t)
    for prompt in PROMPTS:
        t.run("run", "sealpack-demo/tinylm", "--prompt", prompt, "--max-tokens", "24")
    t.say(f"   The license allows {ALLOWANCE} calls before usage must be settled. Three more:")
    for _ in range(3):
        t.run("run", "sealpack-demo/minilm", "--text", QUESTION, quiet=True)
    t.run("run", "sealpack-demo/minilm", "--text", QUESTION, expect=4)
    t.say("   Refused, in the customer's words. Nothing was lost, and settling opens the way again.")


def _compare(t: Teller) -> None:
    answer = t.data("run", "sealpack-demo/minilm", *_texts((QUESTION, *TEXTS)))
    question, *others = answer["answer"]["embeddings"]
    t.say(f"     question: {QUESTION}")
    for text, vector in zip(TEXTS, others, strict=True):
        similarity = sum(a * b for a, b in zip(question, vector, strict=True))
        t.say(f"     {similarity:.2f}  {text}")


def _texts(texts: tuple[str, ...]) -> list[str]:
    return [word for text in texts for word in ("--text", text)]


def _settle(t: Teller) -> None:
    p = t.places
    t.title("The stick goes home: usage out, settlement, acknowledgement back")
    t.run("sync", p.stick)
    usage = next(p.stick.glob("*.usage.gz"))
    t.run("receipts", "verify", usage)
    customers = p.finance / "customers.json"
    customers.write_text(json.dumps(_customers(), indent=2))
    t.run(*_db(p), "import", p.trust, p.creator / "plans" / "plan.yaml", customers,
          p.creator / "licenses" / "registry.jsonl")  # fmt: skip
    t.run(*_db(p), "sync", p.stick, "--key", p.creator / "keys" / "settlement.pem",
          "--witness", p.creator / "keys" / "witness.pem")  # fmt: skip


def _again(t: Teller) -> None:
    t.title("Back at the machine: the acknowledgement opens the next lease")
    t.run("sync", t.places.stick)
    t.run("run", "sealpack-demo/tinylm", "--prompt", PROMPTS[0], "--max-tokens", "12")
    t.run("status")


def _invoice(t: Teller) -> None:
    p = t.places
    t.title("Finance bills what was settled")
    out = p.finance / "invoices"
    period = time.strftime("%Y-%m", time.gmtime())
    t.run(*_db(p), "invoice", "--period", period, "--date", time.strftime("%Y-%m-%d", time.gmtime()),
          "--out", out)  # fmt: skip
    t.run(*_db(p), "reconcile")
    for path in sorted(out.glob("*.json")):
        _payout(t, json.loads(read_bounded(path, 1 << 24)))


def _payout(t: Teller, invoice: dict[str, Any]) -> None:
    currency = invoice["currency"]
    t.say(f"   Invoice {invoice['number']} to {CUSTOMER}")
    for line in invoice["lines"]:
        t.say(f"     {line['description']:<56} {line['amount']:>10} {currency}")
    for name in ("net", "tax", "total"):
        t.say(f"     {name:<56} {invoice[name]:>10} {currency}")
    for share in invoice["shares"]:
        t.say(f"     payout to {share['party']:<46} {share['amount']:>10} {currency}")


def _db(p: Places) -> tuple[str | Path, ...]:
    return "settle", "--db", p.database


def _customers() -> dict[str, Any]:
    return {
        "schema": "sealpack/customers/v1",
        "customers": [
            {"id": "hospital-north", "name": CUSTOMER, "legal_name": "Hospital North Trust",
             "address": ["1 Quay Street", "Port City"], "country": "GB"}
        ],
    }  # fmt: skip


KEPT: dict[str, Callable[[Places], list[Path]]] = {
    "keys": lambda p: [p.creator / "keys" / "bundle.pub.pem"],
    "trust": lambda p: [p.trust],
    "bundles": lambda p: sorted((p.creator / "bundles").glob("*.sealpack")),
    "licenses": lambda p: [*sorted(p.stick.glob("*.license")), p.creator / "licenses" / "registry.jsonl"],
    "usage": lambda p: sorted(p.stick.glob("*.usage.gz")),
    "acks": lambda p: sorted(p.stick.glob("*.ack")),
    "invoices": lambda p: sorted(
        q for q in (p.finance / "invoices").iterdir() if q.suffix in (".json", ".csv", ".html")
    ),
}
RENAMED = {"bundle.pub.pem": "creator.pub.pem"}


def keep(places: Places, folder: Path) -> list[Path]:
    """Move what is worth keeping to `folder`; private keys of the demo are not."""
    kept = []
    for name, found in KEPT.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in found(places):
            target = folder / name / RENAMED.get(path.name, path.name)
            shutil.copyfile(path, target)
            kept.append(target)
    shutil.copytree(places.state, folder / "state", symlinks=True)
    shutil.copyfile(places.database, folder / "settlement.db")
    return [*kept, folder / "state", folder / "settlement.db"]
