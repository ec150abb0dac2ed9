"""Speed beside other packages' environments: ``make bench-peers``."""
