"""No attack in specs/vectors/bundle gets into the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.corpus import GROUPS, Attack, attacks
from support.site import T0, Site

from sealpack.format.errors import SealpackError
from sealpack.format.trust import Trust
from sealpack.runtime import store


@pytest.mark.parametrize("group", GROUPS)
def test_install_refuses_and_leaves_nothing(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # nobody pulls a plug here
    by_trust: dict[bytes, list[Attack]] = {}
    for case in attacks(group):
        if case.said["expect"] != "ok" and "key" not in case.said:
            by_trust.setdefault(case.trust.read_bytes(), []).append(case)
    path, wrong = tmp_path / "x.sealpack", {}
    for number, (trust, cases) in enumerate(by_trust.items()):
        (tmp_path / str(number)).mkdir()
        site = Site(tmp_path / str(number), {}, Trust.load(trust)).pin()
        with site.state() as state:
            for case in cases:
                path.write_bytes(case.data)
                with pytest.raises(SealpackError) as caught:
                    store.install(state, path, T0)
                if caught.value.code != case.said["expect"]:
                    wrong[case.name] = caught.value.code
                assert list(state.home.store.iterdir()) == [] and store.installed(state) == [], case.name
    assert wrong == {}
