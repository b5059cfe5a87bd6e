"""The page with the slider: one front-end module, run by a server, a notebook and a report."""
