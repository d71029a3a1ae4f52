"""Personality packs: directories that say how an agent plans, what it is told, and which tools it brings."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "shipped"
"""The packs that come with the product."""
