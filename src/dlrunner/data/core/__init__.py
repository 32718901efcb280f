"""What all data sources share: finding, reading, columns, targets, splits, batches."""
