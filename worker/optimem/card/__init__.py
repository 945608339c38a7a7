"""One card, shared by all models of this process: its abilities, copies, marks and memory, and host memory for it."""
