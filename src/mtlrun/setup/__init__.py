"""From a resolved config to the parts of a run, and every refusal before anything is written.

Here: building and checking the components together, loaders, parameter groups, model sizes, device and seed. Not here:
what one component checks about itself (its constructor does).

Contract: `prepare` raises one ConfigError with all problems that can be told apart, or returns parts that fit together;
it writes nothing.
"""
