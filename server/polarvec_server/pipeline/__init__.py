"""The stages between a text and its vector; each takes what the last one returned."""
