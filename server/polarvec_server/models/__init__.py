"""Model folders: bringing them here, reading what they say, and writing the model repository that Triton reads."""
