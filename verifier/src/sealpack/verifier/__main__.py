"""`python -m sealpack.verifier` is the `sealpack` command."""

from sealpack.verifier.cli.main import main

if __name__ == "__main__":
    main()
