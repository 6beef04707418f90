"""Solvers of the small problems that weightings pose, on K x K matrices."""
