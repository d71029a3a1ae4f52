"""Adapters of the models' port: scripted, direct over HTTP, through LiteLLM; and the server that development talks to."""
