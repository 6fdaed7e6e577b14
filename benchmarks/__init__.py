"""This project against its targets and its peers; never installed."""
