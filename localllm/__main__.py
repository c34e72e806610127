"""`python -m localllm` is the command `localllm`."""

from localllm.cli import main

main()
