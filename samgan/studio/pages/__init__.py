"""One file for each page: its routes, and what it reads for its template."""
