"""Generators of the demo model's training text: stories, rewritten TinyStories, facts, sums, small talk, JSON."""
