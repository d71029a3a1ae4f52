"""The server of KFM Agent Shell."""

import os

# The only forks here become Postgres, at once. gRPC's handlers around a fork help nobody then, and now and then crash
# the child when calls are open. gRPC reads this when it is imported, which is after this package.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
