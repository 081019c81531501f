"""Speech recognition behind the recognition protocol: a server that decodes in worker processes."""
