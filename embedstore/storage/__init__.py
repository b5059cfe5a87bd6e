"""What lies on the disk: Parquet parts under a Delta log, the ledger, and the folder that holds them."""
