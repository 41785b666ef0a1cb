"""A searcher and a channel criterion for prunesearch; `pyproject.toml` gives them their names."""
