"""End-to-end programs built on `RNN`, such as a digit classifier and a word language model, and their building blocks.

layers       Dense, Embedding, Recurrent: forward and backward on named parameters
losses       softmax cross-entropy, with lengths
optimisers   SGD that halves its rate, momentum, Adam, clipping by the global norm
batches      padding, batches of similar lengths, windows of one long text
model        what is trained: parameters in one flat dict, a loss, its gradients
training     the loop: progress, early stopping, checkpoints, metrics
digits, words   the two programs that `rnnbench train` runs
by_hand, text_classifier, dynamic_rnn, unrolled   those that `rnnbench example` runs
sources      synthetic data whose best possible loss is known
"""
