"""The main job shown on one machine: our key-value server beside Debian's redis-server.

``tools/quickstart`` is the set-up followed by ``hybrid demo``, which runs ``hybrid.demo.story``.
"""
