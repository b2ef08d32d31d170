"""`sealpack license terms` and `sealpack license presets`: what a license and a preset say, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.format.license import License
    from sealpack.format.trust import Trust


def register(group: click.Group, project_options: Any) -> None:
    """Add both verbs to `sealpack license`."""
    group.add_command(project_options(terms))
    group.add_command(presets)


@click.command(short_help="Say what a license says, in plain words.")
@click.argument("license", metavar="FILE|LICENSE_ID")
@click.option("--lang", type=click.Choice(("en",)), default="en", show_default=True, help="Language.")
@click.option("--out", type=click.Path(dir_okay=False), help="Write the page to this file.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@support.formats("text", "html", "md", "json")
def terms(license: str, lang: str, out: str | None, force: bool, fmt: str, **options: Any) -> None:
    """One page for the customer, made from the license FILE, or the newest of the registry by its id.

    It says who may do what, until when, what happens past each limit, what the vendor sees and never sees,
    and whom to call.
    """
    from sealpack.builder.cli.license_project import place
    from sealpack.verifier import license_words as words

    support.refuse_existing(out, force)
    project = place(options)
    found = _license(license, project.registry, project.trust)
    pages = {"text": words.to_text, "html": words.to_html, "md": words.to_markdown}
    page = pages[fmt](found) if fmt in pages else support.json_text(words.to_dict(found))
    support.write_result(support.for_screen(page) if out is None and fmt == "text" else page, out, force)


def _license(name: str, registry: Path, trust: Trust) -> License:
    """The license in a file, else the newest one of the registry with that id; LIC_MISSING."""
    from sealpack.builder import license_files, licensing
    from sealpack.builder.cli.license_project import envelope_of
    from sealpack.format.license import open_license

    path = Path(name)
    if path.exists():
        return open_license(envelope_of(path), trust)
    lines = license_files.read_registry(registry)
    found = [r.license for r in licensing.registered(lines, trust) if r.license.license_id == name]
    if not found:
        raise SealpackError(
            "LIC_MISSING",
            f"{name} is no file, and no license of {registry}",
            remedy="see `sealpack license list`",
        )
    return max(found, key=lambda one: one.seq)


@click.command(short_help="Show what licenses can start from.")
@click.argument("name", required=False)
@click.option("--project", "folder", type=click.Path(file_okay=False), default=".", help="Project folder.")
@support.format_option
def presets(name: str | None, folder: str, fmt: str) -> None:
    """The table of presets, those of the project's sealpack.toml too; or all values of the preset NAME."""
    from sealpack.builder import config as configs, profiles

    path = Path(folder) / configs.CONFIG_NAME
    known = profiles.known(configs.load(path).license.profiles if path.exists() else {})
    if name is None:
        rows = {each: profiles.to_dict(known[each]) for each in known}
        result = {"schema": "sealpack/presets/v1", "presets": rows}
        support.emit(result, profiles.table(known), fmt)
        return
    preset = profiles.find(name, known)
    result = {"schema": "sealpack/preset/v1", "name": name, **profiles.to_dict(preset)}
    support.emit(result, profiles.details(name, preset), fmt)
