"""Entry of the frozen `sealpack-runtime`: customers' verbs only."""

import sys

from sealpack.verifier.cli.main import CUSTOMER_VERBS, make_cli, run

if __name__ == "__main__":
    sys.exit(run(make_cli(CUSTOMER_VERBS, name="sealpack-runtime")))
