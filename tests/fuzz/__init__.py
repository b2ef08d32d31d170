"""Fuzzing of everything that reads bytes nobody vouches for.

`python tests/fuzz TARGET|all --seconds N` runs the coverage-guided fuzzer (needs atheris),
`python tests/fuzz structural` the exhaustive structural one. The tests here replay the kept corpus and run
both in a short form.
"""
