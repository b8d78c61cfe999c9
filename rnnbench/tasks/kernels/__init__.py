"""What training does to large arrays, compiled by Numba and run on the threads of the compiled backend.

team.py has the threads, passes.py what goes over memory once (losses, optimisers), products.py a dense layer's products. Models run
this code whatever their network's backend, so it is the same for all of them.
"""
