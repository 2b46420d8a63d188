"""Texts for the encoder: prompts, descriptions, embeddings."""
