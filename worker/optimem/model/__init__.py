"""The parts of a live model: weights as spans and units, parameters, modules, and the recording of a forward. Touches no
device."""
