"""One run as one page without scripts, to keep or to send: curves, first and last pictures, findings, settings."""
