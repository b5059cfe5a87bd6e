"""What lies on the disk: Parquet parts under a Delta log, the journal, and the folder that holds them."""
