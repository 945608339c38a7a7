"""The plan that a model would get, without following it: `optimem.plan`."""
