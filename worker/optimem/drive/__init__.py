"""What `optimemctl run` does in the worker: the plain model, the paged one, and whether they agree."""
