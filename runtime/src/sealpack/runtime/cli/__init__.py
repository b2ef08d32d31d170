"""Customer verbs, one module each; heavy imports happen inside the verb."""
