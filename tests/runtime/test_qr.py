"""Requests and replies as QR codes: drawn, photographed badly, decoded, installed; and what is refused."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import json
import os
import pty
import random
import secrets
import select
import struct
import subprocess
import sys
import termios
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import segno
import zxingcpp
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageFilter
from runtime.test_cli import Shell, pinned
from support.site import Site, make_license
from support.world import T0

from sealpack.format import canonical, compact, documents, qr
from sealpack.format.activation import ActivationRequest
from sealpack.format.compact_words import WORDS
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.keys import ED25519, PrivateKey
from sealpack.format.limits import LIMITS
from sealpack.verifier.cli import codes

VECTORS = Path(__file__).parents[2] / "specs" / "vectors" / "qr"


@pytest.fixture
def shell(site: Site, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(site, capsys)


def request_of(**more: str) -> bytes:
    """A request with fresh random members, as large as `more` makes it."""
    key = PrivateKey.generate(ED25519)
    payload = {
        "device_key": key.public.pem,
        "nonce": secrets.token_hex(16),
        "created": T0,
        "root_digest": secrets.token_hex(32),
        "runtime": "sealpack 0.2.0",
        "device_label": "ward 3, second floor",
        "license_id": "hospital-north-20261121-c337",
    }
    return Parcel((documents.seal("activation-request", payload | more, key),)).to_bytes()


SIZES = {
    "Ed25519 alone": lambda: request_of(),
    "hybrid key": lambda: request_of(hpke_key=base64.b64encode(secrets.token_bytes(1216)).decode()),
    "hybrid key and hardware": lambda: request_of(
        hpke_key=base64.b64encode(secrets.token_bytes(1216)).decode(),
        key_store="file",
        fingerprint="".join(f"{kind}{secrets.token_hex(4)[:7]}" for kind in "12344567"),
    ),
}


def decode(image: Image.Image) -> list[str]:
    """Texts of the QR codes in a picture: a decoder sees bar codes of other kinds in them now and then."""
    wanted = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)
    return [found.text for found in zxingcpp.read_barcodes(image, formats=wanted)]


def picture(text: str, version: int, scale: int = codes._SCALE) -> Image.Image:
    out = io.BytesIO()
    codes.make(text, version).save(out, kind="png", scale=scale, border=codes.QUIET)
    return Image.open(out).convert("L")


def photograph(image: Image.Image) -> Image.Image:
    """The picture as a hand-held camera sees it: tilted, turned, soft, noisy, unevenly lit."""
    side = image.width
    canvas = Image.new("L", (side + side // 2,) * 2, 70)
    canvas.paste(image, (side // 4, side // 4))
    w = canvas.width
    corners = [(0.02, 0.05), (0.97, 0.0), (1.0, 0.96), (0.0, 1.0)]  # where the photo's corners lie
    tilted = canvas.transform(
        (w, w), Image.Transform.PERSPECTIVE, _perspective(corners, w), Image.Resampling.BICUBIC
    )
    turned = tilted.rotate(7, Image.Resampling.BICUBIC, fillcolor=70).filter(ImageFilter.GaussianBlur(1.4))
    pixels = np.asarray(turned, np.float32)
    light = np.linspace(0.65, 1.0, w)[None, :]
    noise = np.random.default_rng(5).normal(0, 9, pixels.shape)
    return Image.fromarray(np.clip(pixels * light + noise + 12, 0, 255).astype(np.uint8))


def _perspective(corners: list[tuple[float, float]], side: int) -> list[float]:
    """Pillow's eight coefficients that take the corners of the result to `corners` of the source."""
    rows, right = [], []
    for (u, v), (x, y) in zip(corners, [(0, 0), (1, 0), (1, 1), (0, 1)], strict=True):
        x, y, u, v = (side * n for n in (x, y, u, v))
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return list(np.linalg.solve(np.array(rows, float), np.array(right, float)))


def screenshot(drawing: str, *, cell: int = 8) -> Image.Image:
    """A terminal with light text on a dark ground, or black on white where the drawing says so."""
    plain = drawing.replace(codes._BLACK_ON_WHITE, "").replace(codes._RESET, "")
    ink, ground = (0, 255) if codes._BLACK_ON_WHITE in drawing else (220, 20)
    lines = plain.split("\n")
    pixels = np.full((2 * len(lines), len(lines[0])), ground, np.uint8)
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            upper, lower = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}[character]
            pixels[2 * row, column] = ink if upper else ground
            pixels[2 * row + 1, column] = ink if lower else ground
    big = np.kron(pixels, np.ones((cell, cell), np.uint8))
    return Image.fromarray(np.pad(big, 60, constant_values=20))


@pytest.mark.parametrize("size", SIZES)
def test_a_request_is_one_code_and_is_read_from_a_picture_and_from_a_bad_photograph(size: str) -> None:
    document = SIZES[size]()
    texts = qr.frames(document)
    version = qr.smallest_version(texts)
    assert len(texts) == 1 and version <= 34
    image = picture(texts[0], version)
    assert decode(image) == list(texts)
    photo = photograph(image)
    assert photo.size != image.size and decode(photo) == list(texts)
    assert qr.join(decode(photo)) == document


@pytest.mark.parametrize("coloured", [True, False])
@pytest.mark.parametrize("window", [(80, 24), (120, 45), (200, 100)])
def test_a_terminal_shows_codes_that_fit_it_and_can_be_read(window: tuple[int, int], coloured: bool) -> None:
    document = SIZES["hybrid key"]()
    texts = qr.frames(document, codes.terminal_version(*window))
    version = qr.smallest_version(texts)
    drawings = [codes.drawing(codes.make(text, version), coloured=coloured) for text in texts]
    for drawn in drawings:
        lines = drawn.replace(codes._BLACK_ON_WHITE, "").replace(codes._RESET, "").split("\n")
        assert len(lines) < window[1] and {len(line) for line in lines} == {len(lines[0])}
        assert len(lines[0]) <= window[0]
        assert ("\x1b" in drawn) is coloured
    read = [text for drawn in drawings for text in decode(screenshot(drawn))]
    random.Random(1).shuffle(read)
    assert qr.join(read) == document


def test_an_animation_and_its_single_pictures_hold_the_same_codes(tmp_path: Path) -> None:
    document = request_of(note="x" * 5, ballast=base64.b64encode(secrets.token_bytes(4000)).decode())
    texts = qr.frames(document)
    assert len(texts) == 3
    paths = codes.save(tmp_path / "reply.png", texts, force=False)
    assert [p.name for p in paths] == ["reply.png", *(f"reply-{n}of3.png" for n in (1, 2, 3))]
    with Image.open(paths[0]) as image:
        assert image.n_frames == 3 and image.is_animated
    for names in ([paths[0]], paths[:0:-1]):
        assert codes.read_document([str(p) for p in names]) == (document, str(names[0]))
    with pytest.raises(SealpackError, match="code 2 of 3 missing") as caught:
        codes.read_document([str(paths[1]), str(paths[3])])
    assert caught.value.code == "QR_MISSING" and caught.value.facts == {"missing": [2]}
    with pytest.raises(SealpackError, match="already exists"):
        codes.save(tmp_path / "reply.png", texts, force=False)


def test_pictures_are_written_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = qr.frames(request_of(ballast=base64.b64encode(secrets.token_bytes(4000)).decode()))
    written: list[Path] = []

    def failing(path: Path, data: bytes, *, replace: bool) -> None:
        if len(written) == 2:
            raise SealpackError("STORE_FULL", "disk is full")
        written.append(path)
        path.write_bytes(data)

    monkeypatch.setattr(codes, "atomic_write", failing)
    with pytest.raises(SealpackError):
        codes.save(tmp_path / "reply.svg", texts, force=False)
    assert len(written) == 2 and list(tmp_path.iterdir()) == []


def test_capacities_are_those_of_the_standard() -> None:
    for version, room in enumerate(qr.CAPACITY, 1):
        made = codes.make("A" * room, version)
        assert (made.version, made.error, made.mode) == (version, "M", "alphanumeric")
        with pytest.raises(segno.DataOverflowError):
            codes.make("A" * (room + 1), version)


# --- through the verbs --------------------------------------------------------------------------------


def scanned(path: Path) -> str:
    with Image.open(path) as image:
        return "\n".join(decode(image.convert("L"))) + "\n"


def test_activation_by_codes_alone(shell: Shell, tmp_path: Path) -> None:
    pinned(shell)
    asked = tmp_path / "ask.png"
    told = shell.json("activate", "request", "--qr", asked, "--label", "ward 3")
    assert told["pictures"] == [str(asked)] and "path" not in told
    request = ActivationRequest.open(Parcel.from_bytes(qr.join(told["frames"])).documents[0])
    assert qr.join(scanned(asked).splitlines()) == qr.join(told["frames"])
    reply = shell.site.reply(request, make_license()).to_bytes()
    texts = tmp_path / "scans.txt"
    lines = [f" {text.lower()}\t\r\n" for text in reversed(qr.frames(reply, 12))]
    texts.write_text("".join(lines[:1] * 2 + lines))
    assert "license L-1 for Hospital Nord" in shell("activate", "install", texts)
    pictures = codes.save(tmp_path / "reply.png", qr.frames(reply, 12), force=False)
    assert "nothing new" in shell("activate", "install", pictures[0])
    assert "nothing new" in shell("activate", "install", *pictures[1:])


def test_scanned_text_comes_from_standard_input(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(shell)
    reply = shell.site.reply(shell.site.request(), make_license()).to_bytes()
    text = "\n".join(qr.frames(reply, 20)).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert "license L-1" in shell("activate", "install", "-")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(reply)))
    assert "nothing new" in shell("activate", "install", "-")


class Terminal(io.StringIO):
    """A terminal on which a scanner types."""

    def isatty(self) -> bool:
        return True


def test_a_scanner_at_the_terminal_is_answered_code_by_code(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(shell)
    reply = shell.site.reply(shell.site.request(), make_license()).to_bytes()
    one, two, *rest = qr.frames(reply, 20)
    typed = [two, two[:-3], "", "https://acme.example", one, *rest, "what is typed later is left"]
    monkeypatch.setattr("sys.stdin", Terminal("\n".join(typed)))
    assert "license L-1" in shell("activate", "install", "-")
    assert shell.err.count("not taken:") == 2
    assert f"code 2 of {2 + len(rest)} read, {1 + len(rest)} to go" in shell.err
    monkeypatch.setattr("sys.stdin", Terminal(one + "\n"))
    shell("activate", "install", "-", status=3)
    assert "error[QR_MISSING]: code" in shell.err
    monkeypatch.setattr("sys.stdin", Terminal(""))
    shell("activate", "install", "-", status=3)
    assert "no code was scanned" in shell.err


def test_the_terminal_drawing_is_what_request_prints(shell: Shell) -> None:
    pinned(shell)
    out = shell("activate", "request", "--qr")
    drawn = "\n".join(line for line in out.split("\n") if set(line) <= set(" ▀▄█") and line)
    assert "\x1b" not in out
    [text] = decode(screenshot(drawn))
    assert ActivationRequest.open(Parcel.from_bytes(qr.join([text])).documents[0]).created
    assert len(shell.json("activate", "request", "--qr", "-")["frames"]) == 1


def on_a_terminal(shell: Shell, keys: bytes, **environment: str) -> tuple[int, str]:
    """`activate request --qr` on a terminal of 80 x 24: exit status and what the screen got."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    program = "from sealpack.verifier.cli.main import main; main()"
    command = [sys.executable, "-c", program, "activate", "request", "--qr", "--state", shell.site.state_dir]
    variables = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    child = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=variables | environment
    )
    os.close(terminal)
    shown = b""
    while True:
        if select.select([screen], [], [], 0.1)[0]:
            try:
                shown += os.read(screen, 65536)
            except OSError:  # Linux: the other end is closed
                break
        elif shown.rstrip().endswith(b"next code"):  # and it has had time to wait for a key
            os.write(screen, keys[:1])
            keys = keys[1:] or keys  # one that came too early is lost: the last is pressed again
    os.close(screen)
    return child.wait(), shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_a_small_terminal_shows_one_code_after_another(shell: Shell, environment: dict[str, str]) -> None:
    pinned(shell)
    status, shown = on_a_terminal(shell, b" " * 40, **environment)
    assert status == 0
    assert ("\x1b[" in shown) is (not environment)
    drawings: list[list[str]] = [[]]
    for line in shown.split("\n"):
        if line and set(line.replace(codes._BLACK_ON_WHITE, "").replace(codes._RESET, "")) <= set(" ▀▄█"):
            drawings[-1].append(line)
        elif drawings[-1]:
            drawings.append([])
    texts = [text for lines in drawings if lines for text in decode(screenshot("\n".join(lines)))]
    assert len(texts) > 10 and f"code 2 of {len(texts)}" in shown and "a larger window" in shown
    assert ActivationRequest.open(Parcel.from_bytes(qr.join(texts)).documents[0]).nonce


def test_showing_codes_can_be_stopped(shell: Shell) -> None:
    pinned(shell)
    for key in (b"\x03", b"\x04"):
        status, shown = on_a_terminal(shell, b" " + key)
        assert status == 130 and "interrupted" in shown and "code 3 of" not in shown


def test_a_terminal_without_block_characters_is_told(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned(shell)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
    shell("activate", "request", "--qr", status=2)
    assert "give --qr FILE.png" in shell.err


def spoil(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def _png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("1", (width, height), 1).save(out, "PNG")
    return out.getvalue()


def _claims(side: int) -> bytes:
    """A small PNG that says it has side x side pixels."""
    png = _png(8, 8)
    header = side.to_bytes(4) * 2 + png[24:29]
    return png[:8] + codes._chunk(b"IHDR", header) + png[33:]


REFUSED: dict[str, tuple[str, Callable[[list[str]], bytes | str]]] = {
    "truncated": ("QR_FRAME", lambda t: "\n".join([t[0], t[1][:-4]])),
    "foreign": ("QR_FRAME", lambda t: "\n".join([*t, "https://acme.example/"])),
    "missing": ("QR_MISSING", lambda t: t[0]),
    "mixed": ("QR_MIXED", lambda t: "\n".join([t[0], qr.frames(b'{"a":1}')[0]])),
    "long": ("QR_LIMIT", lambda t: t[0] + "0" * 9000),
    "no code": ("QR_PICTURE", lambda t: _png(300, 300)),
    "broken picture": ("QR_PICTURE", lambda t: _png(300, 300)[:50]),
    "huge picture": ("QR_LIMIT", lambda t: _claims(60_000)),
    "large picture": ("QR_LIMIT", lambda t: _png(8200, 8200)),
    "not a scan": ("JSON_INVALID", lambda t: "good morning"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_is_refused_by_name(name: str, shell: Shell, tmp_path: Path) -> None:
    pinned(shell)
    reply = shell.site.reply(shell.site.request(), make_license()).to_bytes()
    code, made = REFUSED[name]
    file = spoil(tmp_path / "scan", made(list(qr.frames(reply, 20))))
    shell("activate", "install", file, status=3)
    assert f"error[{code}]" in shell.err
    assert shell.json("activate", "status")["licenses"] == []


def test_bad_calls_are_told_before_a_request_is_made(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(shell)
    there = spoil(tmp_path / "there.png", "x")
    shell("activate", "request", status=2)
    shell("activate", "request", "--qr", tmp_path / "x.gif", status=2)
    shell("activate", "request", "--qr", there, status=2)
    assert "error[OUTPUT_EXISTS]" in shell.err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    shell("activate", "request", "--qr", tmp_path / "x.png", status=2)
    assert "pip install 'sealpack[runtime]'" in shell.err
    shell("activate", "install", spoil(tmp_path / "a.png", _png(9, 9)), status=2)
    assert "error[EXTRA_MISSING]" in shell.err and "sealpack[qr-scan]" in shell.err
    assert shell.json("activate", "status")["open_requests"] == 0


# --- the format ---------------------------------------------------------------------------------------

JSON = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=60)
    | st.binary(min_size=12, max_size=90).map(lambda b: base64.b64encode(b).decode())
    | st.binary(min_size=12, max_size=90).map(bytes.hex),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    | inner.map(lambda v: base64.b64encode(json.dumps({"in": v}).encode()).decode()),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(JSON, st.integers(5, 34), st.randoms())
def test_every_document_comes_back_from_its_codes(value: object, version: int, chance: random.Random) -> None:
    document = canonical.dumps(value)
    texts = list(qr.frames(document, version)) * 2
    assert all(len(text) <= qr.CAPACITY[version - 1] for text in texts)
    chance.shuffle(texts)
    assert qr.join(texts) == document


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_restored_or_refused(data: bytes) -> None:
    text = len(data[2:]).to_bytes(4) + data[2:]
    for form in (
        data,
        b"\1" + len(text).to_bytes(2, "little") + (len(text) ^ 0xFFFF).to_bytes(2, "little") + text,
    ):
        try:
            assert len(compact.restore(form)) <= LIMITS.document_bytes
        except SealpackError as error:
            assert error.code in ("QR_DIGEST", "QR_LIMIT")


def test_writers_make_only_what_readers_take() -> None:
    with pytest.raises(ValueError, match="canonical"):
        qr.frames(b'{"a":\n1}')
    noise = base64.b64encode(os.urandom(150_000))
    with pytest.raises(SealpackError, match="codes of version 6"):
        qr.frames(b'"' + noise + b'"', 6)
    assert qr.join(qr.frames(b'"' + noise + b'"')) == b'"' + noise + b'"'
    with pytest.raises(SealpackError) as caught:
        qr.frames(b'"' + noise * 2 + b'"')
    assert caught.value.code == "QR_LIMIT"


@pytest.mark.parametrize("case", ["bomb", "grown"])
def test_hostile_codes_cost_little_memory(case: str) -> None:
    lines = (VECTORS / case / "scanned.txt").read_text().splitlines()
    tracemalloc.start()
    with pytest.raises(SealpackError) as caught:
        qr.join(lines)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == "QR_LIMIT" and peak < 4 << 20


def test_the_words_are_those_of_the_page() -> None:
    digest = hashlib.sha256(WORDS).hexdigest()
    page = (VECTORS.parents[1] / "qr.md").read_text()
    assert digest in page and f"{len(WORDS):,} bytes" in page
    assert ", ".join(map(str, qr.CAPACITY)) in page
    assert (VECTORS / "one" / "scanned.txt").read_text() in page
