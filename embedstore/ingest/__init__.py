"""From sources to rows: each picture embedded once."""
