"""One card, shared by all models of this process: what it can do, its copies and marks, its memory, host memory for it."""
