"""The machine: devices and their settings, processes, signals, and the terminal."""
