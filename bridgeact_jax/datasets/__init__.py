"""RLDS datasets -> trajectory stores -> batches."""
