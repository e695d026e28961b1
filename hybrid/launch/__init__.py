"""The launcher: prepares a datapath with privileges and hands it to a program that has none."""
