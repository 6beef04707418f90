"""The config of a run: from the command line to one resolved, checked config, and from its nodes to objects.

Here: composition with Hydra, the closed root, options and aliases, messages about problems, and `build`, which turns a
config node into an object. Not here: the meaning of a component (its class), or which components go together (`setup`).
Nothing imports torch.

Contract: `compose` and `resolve` return plain containers with all interpolations resolved. `build` reads the signature
of the class that `_target_` names: unknown names, wrong types and missing arguments are refused, and a constructor's
ValueError is reported with the key before it. All problems of a config are raised together, as one ConfigError.
"""
