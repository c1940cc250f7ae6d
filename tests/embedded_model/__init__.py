"""The script that built the embedded model."""
