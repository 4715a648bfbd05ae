"""What the hardware is and does, how this process is set, and the clocks."""
