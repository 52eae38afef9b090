"""Kernels in the Triton language, each with the function that launches it; `reference.py` says what they compute."""
