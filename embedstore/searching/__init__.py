"""A query -> its vector -> exact scores -> matches. `reader` answers from one version of the rows."""
