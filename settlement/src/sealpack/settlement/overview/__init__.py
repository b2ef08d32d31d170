"""What finance looks at: customers, licenses, machines, usage and where to find anything.

Source: specs/console.md, "Register" and "Usage". These functions read tables and documents, sum and sort;
they change nothing and know nothing of HTTP. They read roll-ups and the ends of logs, never receipts, so
that they take as long at ten million receipts as at a thousand.
"""
