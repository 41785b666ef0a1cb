"""The measured tables of the documentation, a page or a benchmark a file; tables.py puts them where they belong."""
