"""What a plan would give, without following it: `optimem.plan`."""
