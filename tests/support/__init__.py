"""Equipment: servers, faults, and what judges the result."""
