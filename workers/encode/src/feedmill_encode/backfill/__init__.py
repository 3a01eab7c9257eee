"""Fills a space from the stored posts: several processes at once, beside live traffic, interrupted at will."""
