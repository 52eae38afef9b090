"""The GPU engine: packed tokens through torch's matrix products and kernels in the Triton language, in CUDA graphs."""
