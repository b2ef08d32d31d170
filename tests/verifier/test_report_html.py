"""The HTML page: balanced, self-contained, and never changed by what a bundle says."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support import reports, world
from support.reports import HOSTILE, NOW

from sealpack.format.errors import SealpackError
from sealpack.format.words import fingerprint_words
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.render import html, markdown
from sealpack.verifier.render.markup import ATTRIBUTES, Html, element, escape
from sealpack.verifier.report import Report

VOID = {"meta", "hr"}
_PAGE = "html|head|meta|title|style|body|header|section|footer|div|span|p|h1|h2|h3|h4|h5|h6|hr|i"
_TEXT = "ul|li|dl|dt|dd|table|thead|tbody|tr|th|td|strong|em|code|pre|blockquote"
TAGS = set(re.split(r"[|]", f"{_PAGE}|{_TEXT}"))


@dataclass
class Page(HTMLParser):
    """A parsed page: tags must balance; text, tags and attributes are kept."""

    source: str
    stack: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    attributes: set[tuple[str, str, str]] = field(default_factory=set)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()
        assert self.stack == []

    def __hash__(self) -> int:
        return id(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(tag, name, value or "") for name, value in attrs}
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.stack[-1:] not in (["style"], ["title"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a reader sees."""
        return re.sub(r"\s+", " ", "".join(self.words))


def check(source: str) -> Page:
    """The page, which has only harmless tags and attributes and leads nowhere."""
    page = Page(source)
    assert page.tags <= TAGS
    assert {name for tag, name, _ in page.attributes if tag not in ("meta", "html")} <= ATTRIBUTES
    assert source.count("<style>") == source.count("</style>") == 1 and "<script" not in source
    (style,) = re.findall(r"<style>(.*)</style>", source, re.DOTALL)
    assert not re.search(r"url\(|@import|https?:", style)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = (
        value for tag, name, value in page.attributes if name == "content" and "default-src" in value
    )
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    return page


def report_on(tmp_path: Path, data: bytes, **how: Any) -> Report:
    path = tmp_path / "notes.sealpack"
    path.write_bytes(data)
    report = verify_bundle(path, *(() if "key" in how else (world.make_trust(),)), **how)
    report.path = "notes.sealpack"
    report.verified_at = NOW
    return report


def test_a_page_tells_everything(tmp_path: Path) -> None:
    report = report_on(tmp_path, reports.rich())
    page = check(html.render(report))
    for told in (
        "✓ PASS",
        "authentic and intact",
        "Notes encoder 1.0.0",
        "2026-09-22 14:13 UTC",
        "2026-09-21 14:13 UTC (as stated)",
        world.ISSUER,
        world.CREATOR.keyid,
        fingerprint_words(world.CREATOR.keyid),
        fingerprint_words(world.make_trust().root_digest),
        f"sha256:{report.facts['bundle_digest']}",
        "due by 2027-10-01",
        "must be accepted before use",
        "commercial use",
        "3: 1 data, 1 library, 1 machine-learning-model",
        "all-MiniLM 2",
        "Clinical-STS",
        "minimum elements",
        "the creator's word, as stated",
        "finds similar notes",
    ):
        assert told in page.text, told
    for entry in report.facts["files"]:
        assert entry["name"] in page.text and entry["sha256"] in page.text
    for found in report.checks:
        assert f"{found.id}{found.detail}" in page.text
    for cluster in report.facts["completeness"]["clusters"]:
        assert f"{cluster['title']}{cluster['present']} of {cluster['applicable']}" in page.text


def test_a_page_of_a_failure(tmp_path: Path) -> None:
    data = reports.rich()
    at = data.index(b"groups reports")
    page = check(html.render(report_on(tmp_path, data[:at] + b"G" + data[at + 1 :])))
    assert "✗ FAIL" in page.text and "✓ PASS" not in page.text
    assert "CONTAINER_CRC" in page.text and "Next: get the file again" in page.text
    assert "nobody vouches for it" in page.text and "sbom: not reached" in page.text
    assert "authentic and intact" not in page.text


def test_a_page_of_a_bundle_that_only_the_policy_refuses(tmp_path: Path) -> None:
    report = report_on(tmp_path, reports.rich())
    for rule in ("policy.license.allowed", "policy.tier.minimum"):
        report.failed(rule, SealpackError("POLICY_DENIED", f"{rule} is not met"))
    page = check(html.render(report))
    assert "✗ FAIL" in page.text and "policy.license.allowed is not met. (1 more below.) Next:" in page.text
    assert "Only the policy" in page.text and "nobody vouches" not in page.text


def test_a_page_of_almost_nothing(tmp_path: Path) -> None:
    page = check(html.render(report_on(tmp_path, b"PK\3\4")))
    assert "✗ FAIL" in page.text and "Who signed" not in page.text


def test_a_page_of_parts(tmp_path: Path) -> None:
    """Facts that only some bundles have are left out where they are not there."""
    report = report_on(tmp_path, reports.rich())
    report.facts["card"] = {"name": "card.md", "text": "# Cut", "truncated": True}
    report.facts["license_terms"] = {"spdx": "MIT", "digest": "ab" * 32, "text": "license/MIT"}
    report.facts |= {"encrypted": True, "watermark": True}
    for name in ("completeness", "size", "evidence", "support"):
        del report.facts[name]
    told = {"standard": "s", "present": 1, "applicable": 1, "clusters": []}
    report.verified_at = None
    assert (
        "Not present"
        not in check(html.render(replace(report, facts=report.facts | {"completeness": told}))).text
    )
    page = check(html.render(report))
    assert "the rest is in the bundle" in page.text and "GGUF, encrypted, watermarked" in page.text
    assert "not asked for" in page.text and "Completeness" not in page.text and "Support" not in page.text


def test_a_page_with_evidence_tier_and_policy(tmp_path: Path) -> None:
    report = report_on(tmp_path, reports.rich())
    report.facts |= reports.evidence_facts()
    page = check(html.render(report))
    for told in (
        "Lab (test)",
        "0.91 (over 20; baseline 0.5)",
        "20 rows of STS",
        "Valid until2026-09-21",
        "20 of 10 rows",
        "policy team",
    ):
        assert told in page.text, told
    assert "was valid until 2026-09-21" in page.text  # a warning
    assert "no trust file was given" in page.text and "ML-DSA-65 (post-quantum)" in page.text


def test_a_document_that_leaves_out_what_it_may(tmp_path: Path) -> None:
    report = report_on(tmp_path, reports.rich())
    report.facts["evidence"] = [{"name": "evidence/a.json", "signed": True, "verified": True}]
    text = check(html.render(report)).text
    assert "signed by an evaluator, and the signature holds" in text
    assert "? rows of unnamed data" in text and "Tasknot stated" in text and "Issued" not in text


def test_a_page_without_a_trust_file(tmp_path: Path) -> None:
    page = check(html.render(report_on(tmp_path, reports.rich(), key=world.CREATOR.public)))
    assert "nobody was asked whose key it is" in page.text
    assert "revocation: not made without a trust file" in page.text


def test_a_hostile_bundle_changes_no_tag(tmp_path: Path) -> None:
    """The same elements whether every text is harmless or an attack; and all of it can be read."""
    tame = report_on(tmp_path, reports.rich())
    tame.facts |= reports.evidence_facts()
    wild = reports.poisoned(tame)
    wild.facts["card"] = tame.facts["card"]  # the card has structure of its own: next test
    before, after = check(html.render(tame)), check(html.render(wild))
    assert after.tags == before.tags
    assert "<script>alert(1)</script>" in after.text and "\\x1b[2J\\u202e" in after.text
    assert {a for a in after.attributes if a[1] == "class"} <= {
        a for a in before.attributes if a[1] == "class"
    }
    assert "\x1b" not in after.source and "\u202e" not in after.source and "$body" in after.text


def test_a_hostile_bundle_that_really_is_one(tmp_path: Path) -> None:
    said = {name: HOSTILE.replace("\r\n", "") for name in ("name", "description", "intended_use", "support")}
    terms = {
        "title": HOSTILE,
        "attribution": HOSTILE,
        "allow": (HOSTILE,),
        "deny": (HOSTILE,),
        "spdx": HOSTILE,
    }
    report = report_on(tmp_path, reports.rich(HOSTILE.encode() * 50, said, terms))
    assert report.ok, report.failures
    page = check(html.render(report))
    assert page.text.count("<script>alert(1)</script>") > 50


def test_the_same_report_is_the_same_page(tmp_path: Path) -> None:
    data = reports.rich()
    assert html.render(report_on(tmp_path, data)) == html.render(report_on(tmp_path, data))


# --- markup ---------------------------------------------------------------------------------------------


def test_markup_escapes_what_is_not_markup() -> None:
    assert escape("<a & \"'\n>") == "&lt;a &amp; &quot;&#x27;\\n&gt;"
    assert escape(Html("<b>")) == "<b>"
    assert element("p", "<", element("i", class_='"><')) == '<p>&lt;<i class="&quot;&gt;&lt;"></i></p>'


@pytest.mark.parametrize("name", ["href", "src", "style", "onclick"])
def test_markup_has_no_attribute_that_leads_out(name: str) -> None:
    with pytest.raises(ValueError, match="not one of ours"):
        element("a", **{name: "x"})


# --- model card -----------------------------------------------------------------------------------------


def test_a_card_is_rendered() -> None:
    page = check_card(reports.CARD.decode())
    assert "<pre>license: apache-2.0</pre>" in page.source
    assert "<h3>Notes encoder</h3>" in page.source
    assert "<strong>small</strong>" in page.source and "<em>public</em>" in page.source
    assert "the paper (https://example.org/p.pdf)" in page.text and "[picture: plot]" in page.text
    assert "<li>groups reports by ward</li>" in page.source
    assert "<td>STS-B</td><td>0.82</td>" in page.source
    assert "<blockquote>the creator&#x27;s own figures</blockquote>" in page.source
    assert "<hr>" in page.source and "<pre>print(&quot;&lt;b&gt;&quot;)</pre>" in page.source


def check_card(text: str) -> Page:
    """A card's markup, balanced and harmless."""
    page = Page(str(markdown.render(text)))
    assert page.tags <= TAGS
    assert {name for _, name, _ in page.attributes} <= {"class", "scope"}
    return page


@pytest.mark.parametrize(
    "text",
    [
        "",
        "---",
        "```\nnever closed",
        "# ",
        "| a |\n|---|",
        "- \n-",
        "<script>alert(1)</script>",
        "[a](javascript:alert(1))",
        "![x](//evil.example/a.png)",
        "**<b>**`</code><img>`*<i>*",
        "> <iframe src=x>",
        "|<td>|\n|-|\n|</table>|",
        "&lt;script&gt; <!-- --> <![CDATA[ ]]> <?x?>",
        "\x00\x1b[2J\u202e\r\n\tx",
    ],
)
def test_any_card_is_harmless(text: str) -> None:
    page = check_card(text)
    assert "\x1b" not in page.source and not re.search(r"<(script|img|iframe|b>|!)", page.source)


@pytest.mark.parametrize(
    "unit", ["*", "**", "`", "[", "![", "](", "# #", "|", "- ", "> ", "* a", " \t#x", "-|:"]
)
def test_a_card_takes_linear_time(unit: str) -> None:
    text = unit * (64 * 1024 // len(unit))
    began = time.process_time()
    for shape in (text, f"# {text}", f"a|b\n{text}x", "\n".join([unit * 8] * 4000)):
        check_card(shape)
    assert time.process_time() - began < 5
