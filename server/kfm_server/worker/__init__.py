"""The worker program: performs the steps of one pool, outside the server and without its database."""
