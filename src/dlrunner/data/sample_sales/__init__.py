"""A generated shop: daily sales of eight stores, for trying a forecast."""
