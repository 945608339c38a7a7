"""Whatever reaches into torch and Python: hooks, modes, the gate, compiled graphs, autocast, fused paths. Knows no pages."""
