"""One file per verb; a verb loads its heavy parts when it runs."""
