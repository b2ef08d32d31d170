"""The attacks of specs/runtime-state.md and the tests that show what each gets: table.toml.

`python tests/adversarial` runs them all and prints the table.
"""
