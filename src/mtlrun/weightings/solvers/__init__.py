"""Solvers of the small problems that several weightings pose, on K x K matrices.

Here: projections on cones and on the simplex, shortest vectors, and systems of equations, given the Gram matrix of the
task gradients.
Not here: a solver of one method (in its file), or what is kept between steps (`weightings.state`).

Contract: pure functions in float64, which report whether they have found the solution; a weighting then counts and logs
a fallback. They work on cosines between task gradients, so that lengths do not decide what counts as zero.
"""
