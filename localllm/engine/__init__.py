"""Tokens in, tokens out: sequences, the memory they share, what runs next, and the one thread that runs it."""
