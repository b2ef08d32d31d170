"""The attack corpus: one module per group, each with `cases(add)`."""
