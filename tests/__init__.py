"""Tests, laid out like the tree they test. What they share: conftest.py here, helpers beside those who use them."""
