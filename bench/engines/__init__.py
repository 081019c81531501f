"""The real engine servers under load, on networks of the published sizes with random weights."""
