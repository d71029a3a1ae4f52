"""The sandbox: code of packs and models, each call behind walls that it cannot see over."""
