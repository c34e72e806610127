"""Makes the bundled demo models from nothing: corpus, tokenizer, training, GGUF files, evaluation. Run `python -m tools.demo_model`."""
