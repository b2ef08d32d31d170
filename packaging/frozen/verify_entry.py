"""Entry of the frozen `sealpack-verify`: what a security team needs, in one file."""

import sys

from sealpack.verifier.cli.main import make_cli, run

if __name__ == "__main__":
    sys.exit(run(make_cli(("verify", "inspect", "trust"), name="sealpack-verify")))
