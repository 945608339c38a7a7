"""The worker's part of `optimemctl run`: the plain model, the paged one, and whether they agree."""
