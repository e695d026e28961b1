"""Steering: parsing, matching, counting, attaching."""
