"""RPCs in, records in the log and answers out."""
