"""Carrying a bundle away: merged weights, baked item tokens, GGUF files for llama.cpp."""
