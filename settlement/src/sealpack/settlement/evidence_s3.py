"""S3-compatible object storage as the place of raw uploads, by boto3.

Source: specs/settlement-ingest.md, "Evidence". Credentials come from where that client always looks for them
(environment, profile, role of the machine) and are never recorded.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from sealpack.format.errors import SealpackError
from sealpack.settlement.evidence_bytes import checked, gone

_CONNECT_S, _READ_S, _TRIES = 10, 60, 5
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403")
_MISSING = ("NoSuchKey", "404")


def location_of(url: str, endpoint: str | None) -> str:
    """What is recorded of `s3://BUCKET/PREFIX` and the address of the server; USAGE."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
        raise SealpackError("USAGE", "object storage is named like s3://BUCKET/PREFIX")
    if endpoint is not None:
        server = urlsplit(endpoint)
        if server.scheme not in ("http", "https") or not server.hostname or "@" in server.netloc:
            raise SealpackError("USAGE", "the endpoint must be like https://storage.example:9000")
    prefix = parts.path.strip("/")
    said = f"?endpoint={quote(endpoint.rstrip('/'), safe=':/')}" if endpoint else ""
    return f"s3://{parts.netloc}/{prefix}{said}"


@dataclass(frozen=True, slots=True)
class S3:
    """Objects `PREFIX/ab/cdef...` in a bucket."""

    bucket: str
    prefix: str
    client: Any
    errors: Any  # botocore.exceptions

    @classmethod
    def at(cls, location: str) -> S3:
        """The store of a recorded location; EXTRA_MISSING."""
        try:
            import boto3
            import botocore.exceptions
            from botocore.config import Config
        except ModuleNotFoundError:
            raise SealpackError(
                "EXTRA_MISSING", "object storage needs boto3, which is not installed",
                remedy="pip install 'sealpack[s3]'",
            ) from None  # fmt: skip
        parts = urlsplit(location)
        endpoint = parse_qs(parts.query).get("endpoint", [None])[0]
        config = Config(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            retries={"mode": "standard", "max_attempts": _TRIES},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",  # ours is sent; other servers refuse the newer kind
            response_checksum_validation="when_required",
        )
        client = boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)
        prefix = parts.path.strip("/")
        return cls(parts.netloc, f"{prefix}/" if prefix else "", client, botocore.exceptions)

    def prepare(self) -> None:
        """See that the bucket is there and lets us in."""
        self._call("head_bucket")

    def put(self, digest: str, data: bytes) -> None:
        """As of `Store`; the server compares the digest, too."""
        said = base64.b64encode(bytes.fromhex(digest)).decode()
        self._call("put_object", Key=self._key(digest), Body=data, ChecksumSHA256=said)

    def get(self, digest: str) -> bytes:
        """As of `Store`."""
        try:
            answer = self._call("get_object", Key=self._key(digest))
            return checked(digest, answer["Body"].read())
        except KeyError:
            raise gone(digest, f"s3://{self.bucket}/{self.prefix}") from None
        except (self.errors.BotoCoreError, OSError) as error:  # while the body comes
            raise self._unreachable(error) from None

    def _key(self, digest: str) -> str:
        return f"{self.prefix}{digest[:2]}/{digest[2:]}"

    def _call(self, name: str, **arguments: Any) -> Any:
        """One call; KeyError for an object that is not there."""
        try:
            return getattr(self.client, name)(Bucket=self.bucket, **arguments)
        except self.errors.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING and "Key" in arguments:
                raise KeyError(arguments["Key"]) from None
            raise self._refused(code, error) from None
        except self.errors.BotoCoreError as error:
            raise self._unreachable(error) from None

    def _refused(self, code: str, error: Exception) -> SealpackError:
        message = f"s3://{self.bucket}: {error}"[:300]
        if code in _DENIED:
            return SealpackError(
                "STORE_READONLY", message, remedy="let these credentials read and write objects in the bucket"
            )
        return SealpackError("STORE_IO", message, remedy="see that the bucket is there, then try again")

    def _unreachable(self, error: Exception) -> SealpackError:
        remedy = "see that the server answers and that credentials are in the environment, then try again"
        return SealpackError("STORE_IO", f"s3://{self.bucket}: {error}"[:300], remedy=remedy)
