"""Pure functions: recorded readings in, causes out. Nothing here touches network, clock or file."""
