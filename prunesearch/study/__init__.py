"""Studies: every trial of one question in a database, and the loop that fills it."""
