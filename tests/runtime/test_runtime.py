"""The Python API from pin to acknowledgement, on real engines."""

from __future__ import annotations

from support.site import INPUT, Site

import sealpack.runtime
from sealpack.format.usage_reader import verify_usage
from sealpack.runtime import receipts


def open_runtime(site: Site, bundle_id: str = "acme/tiny") -> sealpack.runtime.Runtime:
    return sealpack.runtime.open(bundle_id, state=site.state_dir, threads=1)


def test_a_call_is_answered_metered_and_receipted(site: Site) -> None:
    site.ready()
    with open_runtime(site) as runtime:
        answer = runtime.infer(INPUT, cost_centre="ward")
    assert answer.value["labels"][0]["label"] == "b"
    assert answer.meters["calls"] == answer.meters["items"] == 1
    assert answer.meters["ms"] >= 1
    with site.state() as state:
        files = receipts.export(state, site.folder)
        assert receipts.verify_log(state, 1) == []
    report = verify_usage(files[0].path.read_bytes())
    assert report.ok
    assert report.growth.total("calls") == 1
    with site.state() as state, state.read() as db:
        kinds = [r.kind for r in receipts.recent(db, 1, 100)]
    assert kinds == ["g", "b", "u", "t", "e"]


def test_every_task_runs(site: Site) -> None:
    site.ready()
    site.install("words")
    site.install("talk")
    with open_runtime(site, "acme/words") as runtime:
        assert len(runtime.embed(["hello", "world"]).value["embeddings"]) == 2
    pieces: list[str] = []
    with open_runtime(site, "acme/talk") as runtime:
        answer = runtime.generate("the", max_tokens=8, on_text=pieces.append)
    assert answer.value["text"] == "".join(pieces)
    assert answer.meters["tok_in"] == 2
    assert 0 < answer.meters["tok_out"] <= 8
