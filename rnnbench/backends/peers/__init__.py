"""The peers: PyTorch, ONNX Runtime, JAX and Keras under the protocol of our own backends, each in its own module.

A peer runs its own layers, or with JAX the cell's emitted code, at the fastest that its documentation offers. It gets the same
weights and the same number of threads, and it is held against the same reference before it is timed. What it rearranges for
its own layout it rearranges in `prepare`, `put` and `get`, outside the timing.
"""
