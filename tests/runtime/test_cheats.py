"""Attempts to get an answer without a receipt, a unit without its price, or a receipt that was edited."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import world
from support.acts import refused
from support.site import INPUT, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format import canonical, documents, records
from sealpack.format.activation import Ceiling
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import Devices, Quota, Rate
from sealpack.format.trust import Trust
from sealpack.runtime import anchors, api, device, imports, log, machine, owners, receipts, store, timekeeper
from sealpack.runtime.api import Runtime
from sealpack.runtime.clock import Reading
from sealpack.runtime.log import Writer

DAY_MS = 86_400_000


def open_runtime(site: Site, name: str = "tiny", **options: Any) -> Runtime:
    return sealpack.runtime.open(f"acme/{name}", state=site.state_dir, threads=1, **options)


def usage(site: Site) -> list[tuple[str, int]]:
    """Status and output tokens of every call, after checking the log and the books."""
    with site.state() as state:
        assert receipts.verify_log(state, 1) == []
        with state.read() as db:
            assert db.execute("SELECT count(*) FROM reservations").fetchone() == (0,)
            found = [r for r in receipts.recent(db, 1, 10_000) if r.kind == "u"]
    return [(r.body["status"], r.body["meters"].get("tok_out", 0)) for r in found]


def execute(site: Site, statement: str) -> None:
    database = sqlite3.connect(site.home.database)
    with database:
        assert database.execute(statement).rowcount > 0
    database.close()


def talking(site: Site, **members: Any) -> Site:
    site.pin()
    site.install("talk")
    site.activate(make_license(**members))
    return site


# --- answers without receipts ------------------------------------------------------------------------


def test_an_exception_in_on_text_is_the_callers_cancel_not_an_error(site: Site) -> None:
    """A plan may exempt errors; who raises at the last token must not get the text for nothing."""
    talking(site)
    seen: list[str] = []

    def grab(piece: str) -> None:
        seen.append(piece)
        if len(seen) == 5:
            raise RuntimeError("enough")

    with open_runtime(site, "talk") as runtime, pytest.raises((RuntimeError, SealpackError)):
        runtime.generate("the", max_tokens=20, on_text=grab)
    assert usage(site) == [("cancel", 5)]


def test_a_call_from_within_on_text_is_refused_instead_of_waiting_for_itself(site: Site) -> None:
    talking(site)
    with open_runtime(site, "talk") as runtime:
        for act in (lambda _: runtime.generate("the"), lambda _: runtime.close()):
            refused("USAGE", lambda act=act: runtime.generate("the", on_text=act))  # type: ignore[misc]
        runtime.generate("the", max_tokens=3)
    assert usage(site) == [("cancel", 1), ("cancel", 1), ("ok", 3)]


def test_a_cost_centre_that_no_receipt_can_hold_is_refused_before_the_call(site: Site) -> None:
    site.ready()
    with open_runtime(site) as runtime:
        for name in ("", "ü", "x" * 65, "a\nb"):
            refused("INPUT_INVALID", lambda name=name: runtime.infer(INPUT, cost_centre=name))  # type: ignore[misc]
        runtime.infer(INPUT, cost_centre="ward 3/night")
    assert usage(site) == [("ok", 0)]


def test_a_receipt_that_could_not_be_stored_gives_no_answer_and_is_settled_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.ready(make_license(limits=Rate(inflight=1)))
    store, failures = Writer.finish, [1]

    def full(writer: Writer) -> Any:
        if failures:
            failures.pop()
            raise sqlite3.OperationalError("disk I/O error")
        return store(writer)

    with open_runtime(site) as runtime:
        monkeypatch.setattr(Writer, "finish", full)
        refused("STORE_IO", lambda: runtime.infer(INPUT))
        runtime.infer(INPUT)  # the lost call neither blocks the only slot nor is free
    assert usage(site) == [("aborted", 0), ("ok", 0)]


def test_who_gives_up_while_throttled_has_used_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ready(make_license(quota=(Quota("calls", "term", "device", 0, None, "throttle"),)))

    def interrupt(seconds: float) -> None:
        assert seconds == 1
        raise KeyboardInterrupt

    with open_runtime(site) as runtime:
        monkeypatch.setattr(api.time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runtime.infer(INPUT)
        monkeypatch.undo()
    assert usage(site) == []


def test_a_fork_is_told_and_leaves_the_parents_books_alone(site: Site) -> None:
    site.ready()
    code = f"""
import os, sys, sealpack.runtime as s
from sealpack.format.errors import SealpackError
runtime = s.open("acme/tiny", state={str(site.state_dir)!r}, threads=1)
child = os.fork()
if child == 0:
    try:
        runtime.infer({INPUT!r})
    except SealpackError as error:
        print(error.code, flush=True)
    runtime.close()
    os._exit(0)
os.waitpid(child, 0)
print(runtime.infer({INPUT!r}).receipt.status)
runtime.close()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stdout.split(), ran.stderr) == (["USAGE", "ok"], "")
    assert usage(site) == [("ok", 0)]


def test_closing_twice_closes_nothing_that_is_not_ours(site: Site, tmp_path: Path) -> None:
    site.ready()
    runtime = open_runtime(site)
    runtime.close()
    with (tmp_path / "file").open("w") as file:  # takes the descriptor that became free
        runtime.close()
        file.write("still open")
    for act in (runtime.describe, lambda: runtime.manifest, lambda: runtime.infer(INPUT)):
        refused("USAGE", act)


# --- limits ------------------------------------------------------------------------------------------


def test_zero_calls_per_second_means_none(site: Site) -> None:
    site.ready(make_license(limits=Rate(qps=0)))
    with open_runtime(site) as runtime:
        error = refused("RATE_LIMITED", lambda: runtime.infer(INPUT))
    assert error.message == "the license allows 0 calls per second"
    assert usage(site) == []


def test_processes_are_counted_per_license_and_once_each(site: Site) -> None:
    site.ready(make_license(limits=Rate(processes=1)))
    home = site.home
    other = owners.Owner(home, "L-2")
    with open_runtime(site) as first, open_runtime(site) as second:
        first.infer(INPUT)
        second.infer(INPUT)  # the same process
        foreign = home.owners / "99-abc.def.L-1.lock"
        holder = subprocess.Popen(
            [sys.executable, "-c", f"import fcntl,sys; f=open({str(foreign)!r},'w'); fcntl.flock(f,2);"
             "print(1, flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        error = refused("PROCESS_LIMIT", lambda: first.infer(INPUT))
        assert error.message == "2 processes running under this license, 1 allowed"
        holder.communicate()
        first.infer(INPUT)
    other.release()
    open_runtime(site).close()  # clears away what is left of processes that are gone
    assert list(home.owners.iterdir()) == []


def test_the_callers_order_of_inputs_does_not_decide_the_rows() -> None:
    from sealpack.runtime.engines.onnx import _rows

    np = pytest.importorskip("numpy")

    def declare(*shape: Any) -> Any:
        return SimpleNamespace(shape=list(shape))

    declared = {"mask": declare(1, 5), "x": declare("batch", 3), "t": declare()}
    feed = {"mask": np.zeros((1, 5)), "x": np.zeros((1000, 3)), "t": np.zeros(())}
    assert _rows(declared, feed) == _rows(declared, dict(reversed(feed.items()))) == 1000
    assert _rows({"x": declare(8, 3)}, {"x": np.zeros((8, 3))}) == 8
    assert _rows({"t": declare()}, {"t": np.zeros(())}) == 1


def test_a_months_quota_at_its_edge_and_no_way_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"wall": 1_796_083_199_999, "up": 5_000}  # the last ms of November 2026
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    site.ready(make_license(quota=(Quota("calls", "month", "device", 1, None, "deny"),)))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        error = refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
        assert error.remedy.startswith("wait until 2026-12-01 00:00 UTC")
        now |= {"wall": now["wall"] + 1, "up": now["up"] + 1}
        runtime.infer(INPUT)
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
        now |= {"wall": now["wall"] - 40 * DAY_MS, "up": now["up"] + 1}  # back to October
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
        assert runtime.standing.warnings == ()
    assert usage(site) == [("ok", 0), ("ok", 0)]


def test_a_date_past_every_calendar_is_no_traceback(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "reading", lambda: Reading(400_000_000_000_000, 5, "boot"))
    site.ready(make_license(quota=(Quota("calls", "month", "device", 0, None, "deny"),)))
    with open_runtime(site) as runtime:
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))


def test_each_bundle_has_its_own_ceiling_and_all_share_the_common_one(site: Site) -> None:
    site.pin()
    tiny, words = site.install("tiny"), site.install("words")
    site.activate()
    name = device.name(device.key(site.home))
    lease = site.lease(name, "L-1", 2, {})
    payload = canonical.loads(lease.payload, what="lease")
    own = (Ceiling("calls", 2, tiny.bundle_digest), Ceiling("calls", 1, words.bundle_digest))
    ceilings = (*own, Ceiling("calls", 3))
    payload["ceilings"] = [{k: v for k, v in vars_of(c).items() if v is not None} for c in ceilings]
    payload["lease_seq"] = 3
    site.take(
        Parcel(
            (documents.seal("lease", {k: v for k, v in payload.items() if k != "schema"}, world.SETTLEMENT),)
        )
    )
    with open_runtime(site) as tiny_runs, open_runtime(site, "words") as words_runs:
        words_runs.embed(["hello"])
        refused("UNSETTLED_LIMIT", lambda: words_runs.embed(["hello"]))
        tiny_runs.infer(INPUT)
        tiny_runs.infer(INPUT)
        error = refused("UNSETTLED_LIMIT", lambda: tiny_runs.infer(INPUT))
    assert error.message.startswith(("2 of 2 calls", "3 of 3 calls"))
    assert usage(site) == [("ok", 0)] * 3


def vars_of(ceiling: Ceiling) -> dict[str, Any]:
    return {"meter": ceiling.meter, "limit": ceiling.limit, "bundle_digest": ceiling.bundle_digest}


def test_a_new_epoch_does_not_begin_the_term_again(site: Site) -> None:
    license = replace(make_license(term_s=1000), digest="ab" * 32)
    site.ready(license)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    key = device.key(site.home)
    with site.state() as state, state.write() as db:
        first = log.find(db, "L-1")
        db.execute("UPDATE logs SET epoch=7, origin='before' WHERE log=1")
        root = site.trust.root_digest
        made = log.create(db, key, license, None, root, device.name(key), timekeeper.observe(db))
    assert first is not None
    assert made.started == first.started is not None


def test_a_log_that_knows_too_many_releases_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ready()
    site.install("words")
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    monkeypatch.setattr(records, "MAX_ROUTES", 1)
    with open_runtime(site, "words") as runtime:
        refused("LOG_FULL", lambda: runtime.embed(["hello"]))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    assert usage(site) == [("ok", 0), ("ok", 0)]


# --- editing and restoring ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE counters SET used=0 WHERE period LIKE 'day:%'",
        "UPDATE counters SET used=used-1 WHERE period LIKE 'month:%' AND used>0",
        "DELETE FROM counters WHERE period LIKE 'bundle:%'",
        "UPDATE counters SET reserved=5 WHERE period='term' AND meter='calls'",
        "UPDATE registers SET total=total+1",
        "DELETE FROM leaves WHERE n=(SELECT max(n) FROM leaves)",
    ],
)
def test_edited_books_are_noticed_when_the_runtime_opens(site: Site, statement: str) -> None:
    site.ready()
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    execute(site, statement)
    refused("STATE_TAMPERED", lambda: open_runtime(site))


def test_books_edited_under_a_running_call_are_no_fault_of_ours(site: Site) -> None:
    talking(site)

    def edit(_: str) -> None:
        execute(site, "UPDATE counters SET reserved=0")

    with open_runtime(site, "talk") as runtime:
        refused("STATE_TAMPERED", lambda: runtime.generate("the", max_tokens=1, on_text=edit))


def test_an_edited_receipt_is_never_signed_again_by_an_export(site: Site, tmp_path: Path) -> None:
    site.ready()
    with open_runtime(site) as runtime:
        for _ in range(3):
            runtime.infer(INPUT)
    execute(
        site, "UPDATE leaves SET record=CAST(replace(record, '\"items\":1', '\"items\":2') AS BLOB) WHERE n=3"
    )
    with site.state() as state:
        refused("STATE_TAMPERED", lambda: receipts.export(state, tmp_path))
    assert list(tmp_path.glob("*.usage.gz")) == []


def test_a_restored_database_does_not_fit_what_settlement_acknowledged(site: Site, tmp_path: Path) -> None:
    site.ready()
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    shutil.copy(site.home.database, tmp_path / "yesterday.db")
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    with site.state() as state, state.read() as db:
        ahead = log.by_id(db, 1)
    shutil.copy(tmp_path / "yesterday.db", site.home.database)
    shutil.rmtree(Path(os.environ["SEALPACK_MARKS"]) / device.name(device.key(site.home)))
    ack = site.acknowledge(ahead.size, ahead.frontier.root.hex(), 1)
    error = refused("ACK_FORK", lambda: site.take(ack))
    assert "this log" in error.message


def test_a_lost_activation_does_not_loosen_a_bound_license(site: Site) -> None:
    site.ready()
    execute(site, "DELETE FROM documents WHERE kind='activation'")
    refused("NOT_ACTIVATED", lambda: open_runtime(site))


# --- trust -------------------------------------------------------------------------------------------


def other_vendor() -> Trust:
    def seal(kind: str, envelope: documents.Envelope) -> documents.Envelope:
        payload = canonical.loads(envelope.payload, what=kind)
        return documents.seal(kind, {k: v for k, v in payload.items() if k != "schema"}, world.STRANGER)

    return Trust.from_envelopes(
        world.make_root(keys=(world.STRANGER,)),
        seal("keyring", world.make_keyring()),
        seal("revocations", world.make_revocations()),
    )


def test_a_bundle_of_the_second_vendor_with_its_trust_inside(tmp_path: Path) -> None:
    """What rides along conflicts with the first vendor's chain, which says nothing of this bundle."""
    ours, other = world.make_trust(), other_vendor()
    names = ("root.1", "keyring", "revocations")
    meta = {f"META/trust/{n}.json": e.to_bytes() for n, e in zip(names, ours.envelopes, strict=True)}
    path = tmp_path / "b.sealpack"
    path.write_bytes(world.BundleSpec(meta=meta).build())
    for trusts in ([ours, other], [other, ours]):
        assert store._verify(path, trusts, path).manifest.bundle_id == "acme/tiny"
    withdrawn = ours.update(
        [world.make_revocations(version=2, keys=[{"keyid": world.CREATOR.keyid, "good": []}])]
    )
    for trusts, code in (([other], "TRUST_CONFLICT"), ([other, withdrawn], "KEY_REVOKED")):
        with pytest.raises(SealpackError) as caught:
            store._verify(path, trusts, path)
        assert caught.value.code == code


def test_two_vendors_in_one_frozen_runtime_do_not_disturb_each_other(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    monkeypatch.setattr(machine, "frozen", lambda: True)
    monkeypatch.setattr(machine, "runtime_digest", lambda: "00" * 32)
    monkeypatch.setattr(sys, "executable", str(app / "sealpack-runtime"))
    both = [canonical.loads(t.to_bytes(), what="trust") for t in (other_vendor(), site.trust)]
    (app / "roots.json").write_bytes(canonical.dumps({"schema": anchors.ROOTS_SCHEMA, "roots": both}))
    newer = world.make_revocations(version=2, licenses=["X"])
    with site.state() as state:
        imports.take(state, [Parcel((*site.trust.envelopes, newer))])
        found = anchors.load(state)
    assert [t.revocations.licenses for t in found] == [frozenset(), {"X"}]


def test_a_new_root_restarts_the_clock_however_it_comes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"wall": (world.T0 + 10) * 1000, "up": 5_000}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    site.ready(make_license(issued_at=world.T0 + 400 * 86400))  # an issuer's slip of the pen
    with site.state() as state, state.write() as db:
        assert timekeeper.observe(db).times.soft > now["wall"] + 300 * DAY_MS
    second = world.make_root(version=2)
    with site.state() as state:
        anchors.pin(state, site.trust.update([second]))
        with state.write() as db:
            assert timekeeper.observe(db).times.soft == now["wall"]


# --- hostile inputs ----------------------------------------------------------------------------------

HOSTILE: tuple[Any, ...] = (
    {},
    {"X": [[1, 2, 3]]},
    {"\ud800": [[1, 2, 3]]},
    {"x": [[1, 2, 3]], "y": 1},
    *(
        {"x": value}
        for value in (
            *(None, {}, [], [[]], [[[]]], "text", 5, [[1, 2]], [[1, 2, 3], [4, 5]]),
            *([[1, 2, None]], [[1, 2, {}]], [["1", "2", "3"]], [[1 + 2j, 0, 0]], [[b"1", b"2", b"3"]]),
            *([[float("nan"), 0, 0]], [[float("inf"), 0, 0]], [[1e39, 0, 0]], [[10**30, 0, 0]]),
            *([[[[[[[[1, 2, 3]]]]]]]], [[-(2**63), 2**64, 0]]),
        )
    ),
)


def test_hostile_inputs_are_refused_before_anything_is_reserved(site: Site) -> None:
    site.ready()
    with open_runtime(site) as runtime:
        for value in HOSTILE:
            refused("INPUT_INVALID", lambda value=value: runtime.infer(value))  # type: ignore[misc]
    assert usage(site) == []


TEXTS = (
    "",
    " ",
    "\0",
    "\ud800",
    "\udcff",
    "e\u0301",
    "\u202e\u2066",
    "\U0001f468\u200d\U0001f469",
    "[CLS]",
    "\ufeff" * 50,
    "a" * 10_000,
)


def test_any_text_is_embedded_and_any_prompt_answered_or_refused(site: Site) -> None:
    site.ready()
    site.install("words")
    site.install("talk")
    with open_runtime(site, "words") as words, open_runtime(site, "talk") as talk:
        for text in TEXTS:
            assert len(words.embed([text]).value["embeddings"]) == 1
            try:
                talk.generate(text, max_tokens=2)
            except SealpackError as error:
                assert error.code in ("INPUT_INVALID", "REQUEST_TOO_LARGE")
        began = time.monotonic()
        refused("REQUEST_TOO_LARGE", lambda: words.embed(["x" * (5 << 20)]))
        refused("REQUEST_TOO_LARGE", lambda: talk.generate("x" * (5 << 20)))
        refused("INPUT_INVALID", lambda: words.embed([]))
        assert time.monotonic() - began < 1, "refused by its length, not after working on it"


@pytest.mark.parametrize("options", [{"context": 0}, {"context": -1}, {"threads": 0}, {"threads": 10**6}])
def test_senseless_options_are_told(site: Site, options: dict[str, int]) -> None:
    talking(site)
    refused("USAGE", lambda: sealpack.runtime.open("acme/talk", state=site.state_dir, **options))  # type: ignore[arg-type]


def test_a_state_without_a_name_is_not_the_current_folder() -> None:
    refused("USAGE", lambda: sealpack.runtime.open("acme/tiny", state=""))


@pytest.mark.parametrize(
    ("io", "problem"),
    [
        ({"post": {"kind": "tensor", "output": "nothing"}}, "no output nothing"),
        ({"post": {"kind": "labels", "output": "scores", "labels": ["a"]}}, "1 labels are named"),
        ({"pre": {"kind": "wordpiece", "vocab": "payload/vocab.txt"}}, "does not fill x"),
    ],
)
def test_a_manifest_that_does_not_fit_the_graph_is_refused_at_start_not_billed_per_call(
    site: Site, io: dict[str, Any], problem: str
) -> None:
    site.pin()
    members = site._tiny()
    vocabulary = {"payload/vocab.txt": ("vocabulary", "text/plain", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n")}
    extra = members["extra"] | (vocabulary if "pre" in io else {})
    site.install("tiny", io=members["io"] | io, extra=extra)
    site.activate()
    error = refused("MANIFEST_INVALID", lambda: open_runtime(site))
    assert problem in error.message
    assert usage(site) == []


def reciprocal(folder: Path) -> bytes:
    onnx = pytest.importorskip("onnx")
    h = onnx.helper
    value = [h.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", 3]) for n in ("x", "y")]
    graph = h.make_graph([h.make_node("Reciprocal", ["x"], ["y"])], "r", value[:1], value[1:])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)])
    model.ir_version = 9
    data: bytes = model.SerializeToString()
    return data


def test_numbers_that_json_cannot_carry(site: Site, tmp_path: Path) -> None:
    site.pin()
    post = {"kind": "tensor", "output": "y"}
    for version, kind in (("1.0.0", "tensor"), ("2.0.0", "embedding")):
        io = {"task": "tensor", "pre": {"kind": "tensor"}, "post": post | {"kind": kind}}
        site.install("tiny", model=reciprocal(tmp_path), io=io, extra={}, version=version)
    site.activate()
    zero = {"x": [[1, 0, 2]]}
    with sealpack.runtime.open("acme/tiny@1.0.0", state=site.state_dir) as runtime:
        assert runtime.infer(zero).value == {"outputs": {"y": [[1.0, None, 0.5]]}}
    with sealpack.runtime.open("acme/tiny@2.0.0", state=site.state_dir) as runtime:
        refused("ENGINE_FAILED", lambda: runtime.infer(zero))
    assert usage(site) == [("ok", 0), ("err", 0)]


def test_an_unbound_license_cannot_be_taken_twice_for_more(site: Site) -> None:
    """Quota belongs to the license id: taking the license again, or a newer one, starts no new count."""
    license = make_license(
        devices=Devices("none"), quota=(Quota("calls", "term", "device", 1, None, "deny"),)
    )
    site.pin()
    site.install()
    site.take(Parcel((seal_license(license),)))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    site.take(Parcel((seal_license(license),)), Parcel((seal_license(replace(license, seq=2)),)))
    with open_runtime(site) as runtime:
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
