"""ChatVLA-2: a model that looks, reasons in words, and acts on what it said."""
