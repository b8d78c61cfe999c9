"""Training's operations on large arrays, compiled by Numba and run on the threads of the compiled backend.

team.py has the threads, passes.py single passes over memory (losses, optimisers), products.py a dense layer's products. Models use
this code whatever their network's backend, so it is the same for all of them.
"""
