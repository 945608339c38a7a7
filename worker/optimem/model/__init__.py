"""What a live model is made of: its weights as spans and units, its parameters, its modules, what a recorded forward said.
Touches no device."""
