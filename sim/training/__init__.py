"""Training in steps: what is learnt by N virtual workers, whatever the network."""
