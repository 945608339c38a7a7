"""Where the bytes of weights are, and why they are never wrong: the slab in RAM, the ring and the residents on the card."""
