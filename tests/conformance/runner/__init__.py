"""Plays the conformance scenarios against drivers of the client libraries; see ../README.md."""
