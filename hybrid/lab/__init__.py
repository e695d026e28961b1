"""Labs: network namespaces joined by a veth pair, for tests and for trying things out."""
