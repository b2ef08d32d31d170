"""QR codes at the edge: what tests/runtime/test_qr.py does not reach through the verbs."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path

import pytest
import segno
from PIL import Image

from sealpack.format import canonical, compact, qr
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS
from sealpack.verifier.cli import codes

DOCUMENT = canonical.dumps({"documents": [hashlib.sha256(bytes([n])).hexdigest() for n in range(40)]})


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def refused(code: str, *names: object) -> str:
    with pytest.raises(SealpackError) as caught:
        codes.read_document([str(name) for name in names])
    assert caught.value.code == code
    return caught.value.message


def test_a_small_terminal_shows_each_code_and_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, keys = Terminal(), []
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("shutil.get_terminal_size", lambda: (80, 24))
    monkeypatch.setattr("click.getchar", lambda: keys.append("x"))
    codes.show(DOCUMENT)
    count = len(qr.frames(DOCUMENT, codes.terminal_version(80, 24)))
    said = capsys.readouterr().err
    assert count > 4 and len(keys) == count - 1  # after the last one nothing is waited for
    assert f"code {count} of {count}" in said and said.count("a larger window") == 1
    assert out.getvalue().count("\n") >= 20 * count


def test_the_end_of_input_stops_the_showing(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended() -> str:
        raise EOFError

    monkeypatch.setattr("click.getchar", ended)
    with pytest.raises(codes.click.Abort):
        codes._wait_for_key()


def test_too_much_text_is_not_a_parcel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * (LIMITS.parcel_bytes + 1))
    assert "large.txt" in refused("JSON_LIMIT", large)
    monkeypatch.setattr(codes, "_MAX_FILE", 100)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x" * 101)))
    assert "standard input" in refused("JSON_LIMIT", "-")


def test_several_names_must_all_be_scans(tmp_path: Path) -> None:
    scans, other = tmp_path / "scans.txt", tmp_path / "notes.txt"
    scans.write_text("\n\n".join(qr.frames(DOCUMENT, 6)) + "\n")
    other.write_text("nothing scanned")
    assert codes.read_document([str(scans)]) == (DOCUMENT, str(scans))
    assert "notes.txt holds no scanned codes" in refused("QR_FRAME", scans, other)


def test_a_picture_of_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.png"
    Image.new("1", (200, 200)).save(path)
    monkeypatch.setattr(codes, "_MAX_PIXELS", 39_999)
    assert "pixels" in refused("QR_LIMIT", path)


def test_an_animation_of_too_many_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(codes.animated(codes.pictures(qr.frames(DOCUMENT, 6)[:3], ".png")))
    monkeypatch.setattr(codes, "LIMITS", dataclasses.replace(LIMITS, qr_frames=2))
    assert "3 pictures" in refused("QR_LIMIT", path)


def test_a_foreign_code_beside_ours_is_left_alone(tmp_path: Path) -> None:
    (text,) = qr.frames(b'{"a":1}')
    sheet = Image.new("L", (900, 450), 255)
    for at, content in enumerate((text, "WIFI:S:guest;;")):
        drawn = io.BytesIO()
        segno.make_qr(content).save(drawn, kind="png", scale=6, border=4)
        sheet.paste(Image.open(drawn).convert("L"), (at * 450, 0))
    sheet.save(tmp_path / "wall.png")
    assert codes.read_document([str(tmp_path / "wall.png")])[0] == b'{"a":1}'


def test_missing_codes_are_told_in_runs() -> None:
    texts = qr.frames(DOCUMENT, 6)
    collector = qr.Collector()
    for text in (texts[0], *texts[4:]):
        collector.add(text)
    with pytest.raises(SealpackError) as caught:
        collector.document()
    assert caught.value.code == "QR_MISSING" and "codes 2 to 4" in caught.value.message


def test_base64_that_is_not_canonical_is_kept_as_it_is() -> None:
    document = canonical.dumps({"a": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVpB" + "QR=="})
    assert compact.restore(compact.shrink(document)) == document


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_text_cut_anywhere_is_damaged(cut: int) -> None:
    """Among these are lengths that base32 never has."""
    (text,) = qr.frames(b'{"a":1}')
    with pytest.raises(SealpackError) as caught:
        qr.Collector().add(text[:-cut])
    assert caught.value.code == "QR_FRAME"
