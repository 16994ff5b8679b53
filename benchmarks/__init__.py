"""What the engine costs, measured against the bare mechanism on the same machine in the same minute."""
