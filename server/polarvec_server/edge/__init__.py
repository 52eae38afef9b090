"""The doors: they translate between a wire format and the embedder, nothing else."""
