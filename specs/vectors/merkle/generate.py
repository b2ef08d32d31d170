"""Write the Merkle tree vectors: `python specs/vectors/merkle/generate.py [FOLDER]`.

Each case is one `case.json`. Leaves are hex bytes; hashes lower-case hex. `check` says which of the
three verifications a reader runs, `expect` what it must answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sealpack.format import merkle

# The leaves that certificate-transparency implementations are tested with.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
HASHES = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]


def root(size: int) -> str:
    return merkle.root_of(HASHES[:size]).hex()


def inclusion(index: int, size: int) -> dict[str, Any]:
    proof = merkle.inclusion_proof(HASHES[:size], index)
    return {
        "check": "inclusion",
        "leaf": LEAVES[index],
        "index": index,
        "size": size,
        "root": root(size),
        "proof": [node.hex() for node in proof],
    }


def consistency(old: int, new: int) -> dict[str, Any]:
    proof = merkle.consistency_proof(HASHES[:new], old)
    return {
        "check": "consistency",
        "old": {"size": old, "root": root(old)},
        "new": {"size": new, "root": root(new)},
        "proof": [node.hex() for node in proof],
    }


def flipped(digest: str) -> str:
    return f"{int(digest[0], 16) ^ 1:x}{digest[1:]}"


def _node_as_leaf(good: dict[str, Any]) -> dict[str, Any]:
    node = (HASHES[4] + HASHES[5]).hex()
    return {"leaf": node, "index": 2, "size": 4, "proof": good["proof"][1:]}


def cases() -> dict[str, dict[str, Any]]:
    """Return every case by its folder name."""
    made: dict[str, dict[str, Any]] = {}

    def add(name: str, description: str, expect: str, body: dict[str, Any]) -> None:
        made[name] = {"description": description, "expect": expect, **body}

    tree = {
        "check": "roots",
        "leaves": LEAVES,
        "roots": [root(size) for size in range(9)],
        "frontiers": [merkle.Frontier().extend(HASHES[:size]).to_hex() for size in range(9)],
    }
    add("roots", "Roots and frontiers of the certificate-transparency test tree, sizes 0 to 8.", "ok", tree)
    bad_frontier = {**tree, "frontiers": [*tree["frontiers"][:7], tree["frontiers"][6], tree["frontiers"][8]]}
    add("frontier-of-another-size", "Two subtree roots for a tree of 7.", "RECEIPT_TREE", bad_frontier)

    for index, size in ((0, 1), (0, 8), (5, 8), (2, 3), (6, 7)):
        add(
            f"inclusion-{index}-of-{size}", f"Leaf {index} in a tree of {size}.", "ok", inclusion(index, size)
        )
    good = inclusion(5, 8)
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("inclusion-other-index", "A proof for another index.", {"index": 4}),
        ("inclusion-beyond-the-tree", "An index that is not in the tree.", {"index": 8}),
        ("inclusion-other-leaf", "Another leaf.", {"leaf": "ff"}),
        (
            "inclusion-node-as-leaf",
            "Two leaf hashes passed off as a leaf of a smaller tree.",
            _node_as_leaf(good),
        ),
        ("inclusion-proof-short", "The last hash of the proof is missing.", {"proof": good["proof"][:-1]}),
        ("inclusion-proof-long", "A hash too many.", {"proof": [*good["proof"], root(1)]}),
        (
            "inclusion-proof-flipped",
            "One bit of the proof.",
            {"proof": [flipped(good["proof"][0]), *good["proof"][1:]]},
        ),
        ("inclusion-other-root", "Another tree.", {"root": root(7)}),
    ]
    for name, description, change in wrong:
        add(name, description, "RECEIPT_TREE", {**good, **change})

    for old, new in ((0, 8), (1, 8), (4, 8), (6, 8), (3, 7), (8, 8)):
        add(
            f"consistency-{old}-to-{new}",
            f"A tree of {new} extends one of {old}.",
            "ok",
            consistency(old, new),
        )
    good = consistency(6, 8)
    wrong = [
        ("consistency-old-root", "The old tree was another one.", {"old": {"size": 6, "root": root(5)}}),
        ("consistency-new-root", "The new tree is another one.", {"new": {"size": 8, "root": root(7)}}),
        ("consistency-shrinks", "The new tree is smaller.", {"new": {"size": 5, "root": root(5)}}),
        ("consistency-proof-short", "The first hash is missing.", {"proof": good["proof"][1:]}),
        (
            "consistency-proof-flipped",
            "One bit.",
            {"proof": [*good["proof"][:-1], flipped(good["proof"][-1])]},
        ),
        (
            "consistency-same-size-fork",
            "Two trees of one size.",
            {"old": {"size": 8, "root": root(7)}, "proof": []},
        ),
    ]
    for name, description, change in wrong:
        add(name, description, "RECEIPT_TREE", {**good, **change})
    return made


def main(folder: Path) -> None:
    """Write one folder per case."""
    for name, case in cases().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "case.json").write_text(json.dumps(case, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
