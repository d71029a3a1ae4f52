"""The bridge to the Model Context Protocol, built on the SDK."""
