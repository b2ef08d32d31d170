"""Evaluation: run a model on labelled data with the runtime's own engines, and say how it did.

Source: specs/evidence.md. `data` reads the labelled file, `subject` opens what is evaluated, `tasks` turn
rows into calls and answers into figures, `measure` runs and times them and writes the evidence.
"""
