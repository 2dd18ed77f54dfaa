"""Simulates data-parallel training with compressed gradients: real gradients, real payloads, virtual time."""
