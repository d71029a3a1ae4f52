"""Personality packs: directories that say how an agent plans, what it is told, and which tools it brings."""
