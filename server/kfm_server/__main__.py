"""`python -m kfm_server` is `kfm serve`."""

import sys

from kfm_server.doors.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "serve")
    main()
