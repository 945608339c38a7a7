"""When things happen to one model, from attach to detach."""
