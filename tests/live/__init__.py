"""Live delivery under faults: an independent checker compares what viewers got with what Redis holds."""
