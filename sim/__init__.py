"""The virtual cluster: network, workloads, and training in virtual time."""
