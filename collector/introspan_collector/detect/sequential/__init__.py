"""Evidence in; alarms with a bound on how many are false, out."""
