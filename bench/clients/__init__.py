"""One closed-loop client process per measured system."""
