"""Campaigns against the package, for minutes to hours: fuzz, faults, soak. Never installed."""
