"""Where torch and Python are touched: hooks, modes, the gate, compiled graphs, autocast, fused paths. Knows no pages."""
