"""Attacks on what README promises: each test tries to make the library lie, lose or hang."""
