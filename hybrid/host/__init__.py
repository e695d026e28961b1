"""Follows the addresses, links, routes and neighbours of a network namespace for the shards in it."""
