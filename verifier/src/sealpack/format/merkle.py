"""The RFC 6962 Merkle tree that every receipt log is.

Source: specs/receipts.md, "Tree". A leaf's hash is SHA-256(00 || bytes), a node's
SHA-256(01 || left || right), the empty tree's root SHA-256 of nothing. All hashes here are 32 raw
bytes; documents write them as lower-case hex. Nothing in this module reads or keeps the leaves: a
:class:`Frontier` is all that a log needs to grow, 30 hashes at 10^9 leaves.

A proof that does not hold raises RECEIPT_TREE; no function returns a verdict that could be ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from sealpack.format.errors import SealpackError

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
MAX_SIZE = 2**53 - 1  # leaves; a tree size is an integer in our documents


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of one leaf, over its bytes exactly as stored."""
    return sha256(b"\x00" + leaf).digest()


def leaf_hashes(leaves: Iterable[bytes]) -> list[bytes]:
    """Return :func:`leaf_hash` of each."""
    return [sha256(b"\x00" + leaf).digest() for leaf in leaves]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above two subtrees."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree cut down to what its next leaf needs.

    `roots` are the roots of the perfect subtrees the tree of `size` leaves falls into, largest
    (leftmost) first: one for each bit set in `size`.
    """

    size: int = 0
    roots: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise ValueError(f"tree size {self.size} is outside 0..2^53-1")
        if len(self.roots) != self.size.bit_count():
            raise ValueError(
                f"a tree of {self.size} leaves has {self.size.bit_count()} subtree roots, "
                f"not {len(self.roots)}"
            )
        if any(len(root) != HASH_BYTES for root in self.roots):
            raise ValueError("a subtree root is 32 bytes")

    @property
    def root(self) -> bytes:
        """The root hash of the whole tree."""
        return _fold(self.roots) if self.roots else EMPTY_ROOT

    def append(self, leaf: bytes) -> Frontier:
        """Return the frontier after one more leaf, given by its *hash*."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """Return the frontier after these leaf *hashes*, in order."""
        nodes, roots = list(leaves), list(self.roots)
        size, carry = self.size + len(nodes), self.size
        left_over: list[bytes] = []  # of each level the node that has no right sibling yet
        while nodes:  # a level at a time, from the leaves up
            if carry & 1:
                nodes.insert(0, roots.pop())
            if len(nodes) & 1:
                left_over.append(nodes.pop())
            nodes = [sha256(b"\x01" + a + b).digest() for a, b in zip(nodes[::2], nodes[1::2], strict=True)]
            carry >>= 1
        return Frontier(size, (*roots, *reversed(left_over)))

    def append_subtree(self, height: int, root: bytes) -> Frontier:
        """Return the frontier after 2^height more leaves, given by the root over them.

        ValueError unless such a subtree begins where this tree ends.
        """
        size, roots, node = self.size, list(self.roots), root
        if size & ((1 << height) - 1):
            raise ValueError(f"no subtree of 2^{height} leaves begins at {size}")
        carry = size >> height
        while carry & 1:
            node = node_hash(roots.pop(), node)
            carry >>= 1
        return Frontier(size + (1 << height), (*roots, node))

    def to_hex(self) -> list[str]:
        """Return the subtree roots as documents write them; the size stands beside the list."""
        return [root.hex() for root in self.roots]

    @classmethod
    def from_hex(cls, size: int, roots: Sequence[str]) -> Frontier:
        """Read :meth:`to_hex`'s list. Raises RECEIPT_TREE when it cannot be a tree of `size`."""
        try:
            return cls(size, tuple(_unhex(root) for root in roots))
        except ValueError as error:
            raise SealpackError("RECEIPT_TREE", f"frontier is malformed: {error}") from None


def subtrees(start: int, end: int) -> list[int]:
    """Return the heights of the largest subtrees that leaves [start, end) fall into, in order.

    >>> subtrees(5, 12)
    [0, 1, 2]
    """
    heights = []
    while start < end:
        aligned = (start & -start).bit_length() - 1 if start else MAX_SIZE.bit_length()
        height = min(aligned, (end - start).bit_length() - 1)
        heights.append(height)
        start += 1 << height
    return heights


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the tree over these leaf *hashes*."""
    return Frontier().extend(leaves).root


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the audit path (RFC 6962 §2.1.1) of leaf `index`, nearest sibling first."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"no leaf {index} in a tree of {len(leaves)}")
    path: list[bytes] = []
    low, high = 0, len(leaves)
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(root_of(leaves[middle:high]))
            high = middle
        else:
            path.append(root_of(leaves[low:middle]))
            low = middle
    path.reverse()
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash stands at `index` of the tree (size, root); else RECEIPT_TREE."""
    if not 0 <= index < size <= MAX_SIZE:
        raise SealpackError("RECEIPT_TREE", f"no leaf {index} in a tree of {size}")
    # Below the last leaf's path every level has a sibling; above, only where its bit is set.
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    _expect_length(proof, inner + border)
    node = leaf
    for level, sibling in enumerate(proof[:inner]):
        on_right = index >> level & 1
        node = node_hash(sibling, node) if on_right else node_hash(node, sibling)
    for sibling in proof[inner:]:
        node = node_hash(sibling, node)
    if node != root:
        raise SealpackError("RECEIPT_TREE", f"leaf {index} is not in the tree of {size}")


def consistency_proof(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """Return the proof (RFC 6962 §2.1.2) that the first `old` leaves are a prefix of `leaves`."""
    if not 0 <= old <= len(leaves):
        raise ValueError(f"a tree of {len(leaves)} has no prefix of {old}")
    if old in (0, len(leaves)):
        return []
    path: list[bytes] = []
    low, high = 0, len(leaves)
    # `old` is a whole subtree of the old tree exactly when the walk ends on it from the left edge.
    while high != old:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(root_of(leaves[middle:high]))
            high = middle
        else:
            path.append(root_of(leaves[low:middle]))
            low = middle
    if low:
        path.append(root_of(leaves[low:high]))
    path.reverse()
    return path


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that tree (new, new_root) only appended to tree (old, old_root); else RECEIPT_TREE."""
    if not 0 <= old <= new <= MAX_SIZE:
        raise SealpackError("RECEIPT_TREE", f"a tree of {new} cannot extend one of {old}")
    if old in (0, new):
        _expect_length(proof, 0)
        expected = EMPTY_ROOT if old == 0 else new_root
        if old_root != expected:
            raise SealpackError("RECEIPT_TREE", f"two different trees of {old} leaves")
        return
    old_node, new_node = _replay(old, new, old_root, proof)
    if old_node != old_root or new_node != new_root:
        raise SealpackError("RECEIPT_TREE", f"tree of {new} does not extend the tree of {old}")


def _replay(old: int, new: int, old_root: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the roots that the proof gives the old and the new tree (RFC 9162 §2.1.4.2)."""
    shift = (old & -old).bit_length() - 1  # height of the old tree's last perfect subtree
    index, last = old - 1 >> shift, new - 1 >> shift
    # When the old tree is itself perfect its root is the start and the proof leaves it out.
    path = list(proof) if index else [old_root, *proof]
    inner = (index ^ last).bit_length()
    _expect_length(path, 1 + inner + (index >> inner).bit_count())
    old_node = new_node = path[0]
    for level, sibling in enumerate(path[1:]):
        if level >= inner or index >> level & 1:
            old_node = node_hash(sibling, old_node)
            new_node = node_hash(sibling, new_node)
        else:
            new_node = node_hash(new_node, sibling)
    return old_node, new_node


def _fold(roots: Sequence[bytes]) -> bytes:
    """Return the root above perfect subtrees given largest first."""
    node = roots[-1]
    for left in reversed(roots[:-1]):
        node = node_hash(left, node)
    return node


def _split(size: int) -> int:
    """Return the largest power of two below `size` (RFC 6962's k)."""
    return 1 << (size - 1).bit_length() - 1


def _expect_length(proof: Sequence[bytes], length: int) -> None:
    if len(proof) != length:
        raise SealpackError("RECEIPT_TREE", f"proof has {len(proof)} hashes, not {length}")


def _unhex(text: str) -> bytes:
    if len(text) != 2 * HASH_BYTES or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"{text[:70]!r} is not a lower-case hex SHA-256")
    return bytes.fromhex(text)
