"""sealpack.toml: strict, with the path of the first fault in every refusal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sealpack.builder import config
from sealpack.builder.sections import ExtraFile
from sealpack.format.errors import SealpackError

LEAST = '[bundle]\nid = "acme/x"\nversion = "1.0"\n'


def parse(text: str) -> config.Config:
    return config.parse(text, Path("/base"))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("colour = 1\n" + LEAST, "colour"),
        (LEAST + "colour = 1", "bundle.colour"),
        (LEAST + "[license.terms]\nallows = []", "license.terms.allows"),
        (LEAST + "[[sbom.datasets]]\nname = 'a'\nsize = 3", "sbom.datasets[0].size"),
        (LEAST + "[sbom.base_model]\nname = 'b'\nx = 1", "sbom.base_model.x"),
        ('[bundle]\nid = "acme"\nversion = "1.0"', "bundle.id"),
        ('[bundle]\nid = "Acme/x"\nversion = "1.0"', "bundle.id"),
        ('[bundle]\nid = "acme/x"\nversion = "1.0-rc1"', "bundle.version"),
        ('[bundle]\nversion = "1.0"', "bundle.id"),
        (LEAST + "release_index = 0", "bundle.release_index"),
        (LEAST + "release_index = true", "bundle.release_index"),
        (LEAST + 'quality_tier = "good"', "bundle.quality_tier"),
        (LEAST + 'recertify_by = "soon"', "bundle.recertify_by"),
        (LEAST + 'description = "  "', "bundle.description"),
        (LEAST + "[io]\npre = {kind = 'tensor', scale = 0.5}", "io.pre.scale"),
        (LEAST + "[[io.samples]]\nexpect = {at = 2026-01-01}", "io.samples[0].expect.at"),
        (LEAST + "[[io.samples]]\nexpect = {n = 9007199254740992}", "io.samples[0].expect.n"),
        (LEAST + "[[sbom.metrics]]\ntype = 'acc'\nvalue = 0.9", "sbom.metrics[0].value"),
        (LEAST + "[[sbom.metrics]]\ntype = 'acc'\nvalue = '0,9'", "sbom.metrics[0].value"),
        (LEAST + "[license.terms]\nplan = {id = 'p', version = 0}", "license.terms.plan.version"),
        (LEAST + "[[files]]\nname = 'x'", "files[0].path"),
        (LEAST + "[[files]]\npath = 'a'\nname = '../x'", "files[0].name"),
        (LEAST + "[evidence]\nfiles = 'a.json'", "evidence.files"),
        ("bundle = 3", "bundle"),
    ],
)
def test_refusals_name_the_key(text: str, path: str) -> None:
    with pytest.raises(SealpackError) as caught:
        parse(text)
    assert caught.value.code == "CONFIG_INVALID"
    assert caught.value.message.startswith(path + " ")


def test_values_are_read() -> None:
    read = parse(
        LEAST
        + "recertify_by = 2027-01-31\n[card]\nfile = 'card.md'\n[[files]]\npath = 'sub/vocab.txt'\n"
        + "role = 'vocabulary'\n[keys]\nbundle = '/abs/key.pem'"
    )
    assert read.bundle.release_index == 1
    assert read.bundle.recertify_by == "2027-01-31"
    assert read.card == Path("/base/card.md")
    assert read.files == (ExtraFile(Path("/base/sub/vocab.txt"), "vocab.txt", "vocabulary"),)
    assert read.keys.bundle == Path("/abs/key.pem")


def test_flags_override_and_are_checked_alike() -> None:
    read = parse(LEAST)
    changed = config.override(
        read, bundle={"version": "2.0", "name": None}, license={}, keys={}, top={"card": Path("c.md")}
    )
    assert (changed.bundle.version, changed.bundle.id, changed.card) == ("2.0", "acme/x", Path("c.md"))
    with pytest.raises(SealpackError, match=re.escape("bundle.version")):
        config.override(read, bundle={"version": "v2"}, license={}, keys={}, top={})


def test_a_missing_and_a_broken_file(tmp_path: Path) -> None:
    with pytest.raises(SealpackError) as caught:
        config.load(tmp_path / "none.toml")
    assert caught.value.code == "FILE_MISSING"
    (tmp_path / "bad.toml").write_text("[bundle\n")
    with pytest.raises(SealpackError) as caught:
        config.load(tmp_path / "bad.toml")
    assert caught.value.code == "CONFIG_INVALID"


def test_every_commented_line_of_the_template_is_valid_too(home: Path) -> None:
    """Who removes a '#' from the file that init wrote gets a configuration, not an error."""
    text = (home / "sealpack.toml").read_text()
    opened = re.sub(r"(?m)^# (?=[a-z_]+ = |\[)", "", text)
    assert opened != text
    read = config.parse(opened, home)
    assert read.sbom.base_model is not None
    assert read.io.samples
    assert read.license.terms.ack_required


def test_the_example_of_the_specification() -> None:
    text = (Path(__file__).parents[2] / "specs/config.md").read_text()
    example = text.split("## Example", 1)[1]
    read = parse("\n".join(line.removeprefix("    ") for line in example.splitlines()))
    assert (read.bundle.id, read.io.task) == ("acme/minilm", "embedding")
