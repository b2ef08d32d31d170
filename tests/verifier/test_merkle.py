"""The Merkle tree against RFC 6962's own definition and the certificate-transparency vectors."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given, strategies as st

from sealpack.format import merkle
from sealpack.format.errors import SealpackError
from sealpack.format.merkle import EMPTY_ROOT, Frontier, leaf_hash, node_hash, root_of

# The eight leaves and roots that every certificate-transparency implementation is tested with.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
HASHES = [leaf_hash(leaf) for leaf in CT_LEAVES]


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def naive_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962 §2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if index < k:
        return [*naive_path(index, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(index - k, leaves[k:]), naive_root(leaves[:k])]


def naive_consistency(old: int, leaves: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962 §2.1.2."""
    if old == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if old <= k:
        return [*naive_consistency(old, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_consistency(old - k, leaves[k:], False), naive_root(leaves[:k])]


def tree(size: int) -> list[bytes]:
    return [leaf_hash(b"leaf %d" % index) for index in range(size)]


sizes = st.integers(min_value=0, max_value=130)


def test_certificate_transparency_roots() -> None:
    frontier = Frontier()
    assert frontier.root.hex() == CT_ROOTS[0] == EMPTY_ROOT.hex()
    for leaf, expected in zip(HASHES, CT_ROOTS[1:], strict=True):
        frontier = frontier.append(leaf)
        assert frontier.root.hex() == expected


def test_certificate_transparency_inclusion_path() -> None:
    path = merkle.inclusion_proof(HASHES, 0)
    assert [node.hex() for node in path] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]


def test_certificate_transparency_consistency_proof() -> None:
    proof = merkle.consistency_proof(HASHES, 6)
    assert [node.hex() for node in proof] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(sizes)
def test_frontier_root_equals_the_definition(size: int) -> None:
    leaves = tree(size)
    assert root_of(leaves) == naive_root(leaves)


@given(sizes, st.data())
def test_frontier_continues_from_its_hex_form(size: int, data: st.DataObject) -> None:
    leaves = tree(size)
    cut = data.draw(st.integers(0, size))
    half = Frontier().extend(leaves[:cut])
    again = Frontier.from_hex(half.size, half.to_hex())
    assert again == half
    assert again.extend(leaves[cut:]).root == naive_root(leaves)


@given(st.integers(1, 130), st.data())
def test_inclusion_proofs(size: int, data: st.DataObject) -> None:
    leaves = tree(size)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(leaves, index)
    root = naive_root(leaves)
    assert proof == naive_path(index, leaves)
    merkle.verify_inclusion(leaves[index], index, size, proof, root)
    other = data.draw(st.integers(0, size - 1).filter(lambda i: i != index)) if size > 1 else 0
    if size > 1:
        with pytest.raises(SealpackError, match="RECEIPT_TREE"):
            merkle.verify_inclusion(leaves[index], other, size, proof, root)
    for wrong in _damaged(proof):
        with pytest.raises(SealpackError, match="RECEIPT_TREE"):
            merkle.verify_inclusion(leaves[index], index, size, wrong, root)


@given(sizes, st.data())
def test_consistency_proofs(size: int, data: st.DataObject) -> None:
    leaves = tree(size)
    old = data.draw(st.integers(0, size))
    proof = merkle.consistency_proof(leaves, old)
    old_root, root = naive_root(leaves[:old]), naive_root(leaves)
    assert proof == (naive_consistency(old, leaves) if old else [])
    merkle.verify_consistency(old, old_root, size, root, proof)
    with pytest.raises(SealpackError, match="RECEIPT_TREE"):
        merkle.verify_consistency(old, leaf_hash(b"another tree"), size, root, proof)
    for wrong in _damaged(proof):
        with pytest.raises(SealpackError, match="RECEIPT_TREE"):
            merkle.verify_consistency(old, old_root, size, root, wrong)


def _damaged(proof: list[bytes]) -> list[list[bytes]]:
    extra = [[*proof, bytes(32)]]
    flipped = [
        [*proof[:at], bytes([node[0] ^ 1]) + node[1:], *proof[at + 1 :]] for at, node in enumerate(proof)
    ]
    return extra + flipped + ([proof[1:], proof[:-1]] if proof else [])


def test_the_new_root_of_a_consistency_proof_is_checked_too() -> None:
    proof = merkle.consistency_proof(HASHES, 6)
    with pytest.raises(SealpackError, match="RECEIPT_TREE"):
        merkle.verify_consistency(6, root_of(HASHES[:6]), 8, root_of(HASHES[:7]), proof)


@pytest.mark.parametrize("index, size", [(-1, 4), (4, 4), (0, 0), (0, 2**53)])
def test_no_proof_for_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(SealpackError, match="RECEIPT_TREE"):
        merkle.verify_inclusion(HASHES[0], index, size, [], HASHES[0])


@pytest.mark.parametrize(
    "size, roots",
    [
        (1, []),
        (0, ["00" * 32]),
        (2, ["00" * 31]),
        (2, ["AA" * 32]),
        (2, [" 0" * 32]),
        (-1, []),
        (2**53, ["00" * 32]),
    ],
)
def test_malformed_frontier_is_refused(size: int, roots: list[str]) -> None:
    with pytest.raises(SealpackError, match="RECEIPT_TREE"):
        Frontier.from_hex(size, roots)


def test_proofs_are_only_made_for_what_exists() -> None:
    with pytest.raises(ValueError, match="no leaf 8"):
        merkle.inclusion_proof(HASHES, 8)
    with pytest.raises(ValueError, match="no prefix of 9"):
        merkle.consistency_proof(HASHES, 9)


@pytest.mark.parametrize(
    ("size", "roots", "message"),
    [
        (-1, (), "outside"),
        (2**53, (bytes(32),), "outside"),
        (3, (bytes(32),), "has 2 subtree roots, not 1"),
        (1, (bytes(31),), "32 bytes"),
    ],
)
def test_no_frontier_is_made_that_is_none(size: int, roots: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Frontier(size, roots)
