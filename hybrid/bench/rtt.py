"""``hybrid bench rtt``: round trips of 64 bytes, our stack beside the kernel's and beside no stack at all."""
