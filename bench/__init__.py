"""What Introspan costs and how much it takes, measured: `make bench`."""
