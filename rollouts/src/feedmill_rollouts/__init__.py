"""The rollout operator: takes a worker to a new model, step by step, and back where it does not do."""
