"""From a composed configuration to a checked plan: types, ranges, signatures; nothing is built yet."""
