"""One module per client family: requests become verbs, events become that family's bytes."""
