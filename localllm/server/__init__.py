"""`localllm serve`: the HTTP server. A request is checked (requests), becomes a job of the engine (job), and is told to
the client in OpenAI's words (chat, completions) at once or as it is made (exchange). Who may ask, guard.py decides."""
