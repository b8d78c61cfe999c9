"""Weights and models in and out: PyTorch, Keras, TensorFlow 1, ONNX and plain .npz. Imports no framework until asked to.

`layouts` says how each of them arranges the same matrices: permutations only, so that a round trip changes no bit.
"""
