"""A loaded model: its anatomy, which model it is, and what several workers share of it."""
