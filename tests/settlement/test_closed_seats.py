"""What settlement makes of a registry in which devices gave their seats back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.books import Books
from support.device import Device, make_license

from sealpack.format import documents, records
from sealpack.format.activation import Activation, Ceiling, Lease
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import Quota
from sealpack.format.registry import RegistryLine
from sealpack.settlement import registry
