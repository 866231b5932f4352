"""Triton kernels for what the torch functions beside this folder compute; imported on a GPU only."""
