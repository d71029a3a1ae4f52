"""A development server: speaks OpenAI's HTTP API, answers from a script, refuses what OpenAI refuses."""
