"""What a sweep will cost before it runs: time, memory and disk, measured on a few real steps."""
