"""Networks in the formats of other inference engines. The engines here build on them, too."""
