"""hybrid: a microsecond-scale datapath for the flows a policy names."""
