"""Rewrites of equations, one per file; each states what it needs and what it keeps."""
