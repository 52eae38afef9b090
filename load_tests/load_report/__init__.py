"""What a run leaves behind: the JSON, the page made from it, and the comparison of two of them."""
