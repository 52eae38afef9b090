"""Polarvec server: Korean and English text in over gRPC, retrieval vectors out of Triton."""
