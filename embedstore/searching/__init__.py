"""From queries to rows: vectors of queries, scans, indexes, exact answers."""
