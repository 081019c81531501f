"""Models small enough to be made by a test, which upstream's real code loads and runs."""
