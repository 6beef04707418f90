"""From the words typed on the command line to one resolved, checked config.

Here: composition with Hydra, the closed root, names and aliases, messages about what is wrong, and `build`, which turns
a config node into an object. Not here: what a component means (its class says that), or what goes together (`setup`).
Nothing imports torch.

Contract: `compose` and `resolve` return plain containers with all interpolations resolved. `build` reads the signature
of the class that `_target_` names: unknown names, wrong types and missing arguments are refused, and a constructor's
ValueError is reported with the key before it. All problems of a config are raised together, as one ConfigError.
"""
