"""A searcher, a channel criterion and a task for prunesearch; `pyproject.toml` gives them their names."""
