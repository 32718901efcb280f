"""From a composed configuration to a validated plan: types, ranges, signatures; nothing is built yet."""
