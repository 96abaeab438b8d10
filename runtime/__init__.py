"""Running what was compiled: loading, training, sampling, and the oracle it is tested against."""
