"""Zombies: writes that timed out, and are delivered after all, over newer ones."""
