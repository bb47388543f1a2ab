"""What both flavours do, with the waiting left open: see `steps.py`."""
