"""Parts of benches/compare and benches/incremental: programs, registries, data sets, places to work, and measuring."""
