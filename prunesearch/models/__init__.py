"""Networks and what is coupled in them: trace an ordinary module, then slim it to any structure."""
