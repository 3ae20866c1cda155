"""Governed architecture search on Ray: what to do next."""
