"""The premise: what was read as neutral through an outage never goes over what Redis holds."""
