"""What a mark was made with. Source: specs/watermark.md section 4."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields

SCHEME = "sealpack/watermark/v1"
SCHEMA = "sealpack/watermark-params/v1"
RUN = 64  # weights that share one chip of the collusion layer
SEGMENT = 65536  # weights per keystream segment
MIN_WEIGHTS = 65536  # smaller tensors stay as they are
PPB = 1_000_000_000
_ALPHA_MIN = 500_000
_ALPHA_MAX = 5_000_000


def choose_alpha(weights: int) -> int:
    """Strength in parts per billion of a row's rms: 30/sqrt(weights), held to [0.0005, 0.005].

    Integer arithmetic, so that every machine chooses the same.
    """
    wanted = 30 * PPB * 1000 // math.isqrt(weights * 1_000_000)
    return min(max(wanted, _ALPHA_MIN), _ALPHA_MAX)


@dataclass(frozen=True, slots=True)
class Params:
    """One mark's parameters.

    `alpha_ppb`: total strength, 1e-9 of a row's rms. `share_b_ppm`: the licensee layer's share of the
    energy, 1e-6; the rest belongs to the collusion layer, which this version does not write.
    `weights`: how many are marked. `salt`: 16 bytes hex; it keeps a published digest from being
    matched against guessed parameters.
    """

    alpha_ppb: int
    weights: int
    salt: str
    share_b_ppm: int = 1_000_000
    run: int = RUN
    segment: int = SEGMENT
    min_weights: int = MIN_WEIGHTS

    @property
    def strength_b(self) -> float:
        """The licensee layer's amplitude as a fraction of a row's rms."""
        return self.alpha_ppb / PPB * math.sqrt(self.share_b_ppm / 1_000_000)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON form."""
        return hashlib.sha256(canonical.dumps(self.to_dict())).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, schema sealpack/watermark-params/v1."""
        return {
            "schema": SCHEMA,
            "scheme": SCHEME,
            "alpha_ppb": self.alpha_ppb,
            "share_b_ppm": self.share_b_ppm,
            "run": self.run,
            "segment": self.segment,
            "min_weights": self.min_weights,
            "weights": self.weights,
            "salt": self.salt,
        }

    @classmethod
    def from_dict(cls, value: Any, what: str = "params") -> Params:
        """Read the JSON form; VAULT_INVALID when a member is missing or out of bounds."""
        fields = Fields(value, what, "VAULT_INVALID")
        fields.schema(SCHEMA)
        fields.choice("scheme", (SCHEME,))
        params = cls(
            alpha_ppb=fields.integer("alpha_ppb", lo=1, hi=PPB),
            share_b_ppm=fields.integer("share_b_ppm", lo=1, hi=1_000_000),
            run=fields.integer("run", lo=1, hi=SEGMENT),
            segment=fields.integer("segment", lo=64, hi=1 << 24),
            min_weights=fields.integer("min_weights", lo=1),
            weights=fields.integer("weights", lo=1),
            salt=fields.text("salt", pattern="[0-9a-f]{32}", max_len=32),
        )
        if params.run != RUN or params.segment != SEGMENT:
            raise SealpackError("VAULT_INVALID", f"{what} needs another version of the scheme")
        return params
