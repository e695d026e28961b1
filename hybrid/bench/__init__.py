"""Benchmarks that always run the peer beside us, in turns, and print the ratio.

Absolute figures drift on shared machines, so none is reported alone. The programs that are
measured are C (this folder's ``.c`` files); what is here starts them, lets them take turns,
and makes a :class:`~hybrid.bench.result.Result` of their samples.
"""
