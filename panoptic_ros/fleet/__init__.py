"""A fleet of bags: label every camera image in many bags, on many processes or machines."""
