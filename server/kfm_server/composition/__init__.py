"""Parts of the composition root that app.py puts together: as it, they may name concrete adapters."""
