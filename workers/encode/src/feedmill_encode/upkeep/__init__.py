"""What keeps posts and vectors in step over time: after a switch of the active space, and when posts are deleted."""
