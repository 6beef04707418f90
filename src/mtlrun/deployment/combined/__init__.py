"""One result made of several finished runs: ensembles of their predictions, and models merged of their weights.

Contract: nothing is trained by gradients, the runs are not touched, and the record says what it was made from.
"""
