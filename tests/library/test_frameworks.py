"""Lightning and accelerate with a balancer: examples of docs/library.md, and what they must give. Neither is needed."""
