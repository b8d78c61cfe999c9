"""The peers: PyTorch, ONNX Runtime, JAX and Keras under the protocol of our own backends, each in its own module.

A peer runs its own layers, or with JAX the cell's emitted code, in the fastest configuration it documents. It gets the same
weights and the same number of threads, and it is checked against the same reference before it is timed. It rearranges data for
its own layout in `prepare`, `put` and `get`, outside the timing.
"""
