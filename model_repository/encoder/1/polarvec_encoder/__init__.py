"""The encoder that Triton runs: packs of token ids in, pooled float32 vectors out."""
