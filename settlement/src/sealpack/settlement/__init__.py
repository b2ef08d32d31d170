"""Settlement: takes signed usage files when they come home, bills them once, and answers.

Ingestion keeps raw bytes first, proves every receipt, and advances each device log by compare-and-set, so
that duplicates, overlaps, torn and late files in any order give the same logs and the same money. Rating
is pure and exact; invoices are made from stored roll-ups and plans and are the same bytes every time.

It does not believe what a log says about its price or its test mode: the registry decides. It never
contacts a device: acknowledgements are files.
"""
