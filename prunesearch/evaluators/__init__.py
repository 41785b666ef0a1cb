"""Evaluators score structures on data; none of them trains."""
