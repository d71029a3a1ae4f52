"""Measurements: our server against the bare floor and its peers. See README.md here."""
