"""The peers: what they run, each in an environment of its own."""
