"""The simulator: the real engine on virtual time, an in-memory journal, and faults drawn from a seed (FT25)."""
