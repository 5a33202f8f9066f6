"""Runs the real program for a long time, disturbed in every way, and then checks every guarantee against the server."""
