"""Setup: from a resolved config to the parts of a run; whatever is refused is refused here, before anything is written.

Here: building the components, checking them together, loaders, parameter groups, model size, device and seed. Not here:
what a component checks by itself (in its constructor).

Contract: `prepare` raises one ConfigError with all problems that can be found independently of each other, or returns
`Parts` that fit together, on the device. It writes nothing.
"""
