"""What crosses the wire: compression schemes, their memories, and the drivers that exchange their payloads."""
